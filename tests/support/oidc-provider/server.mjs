// panva's oidc-provider, a certified server that we did not write, under the control of one test.
//
// argv[2] is JSON: { port, clients, scopes, accessTokenSeconds, rotate, omitIss, resources, detailTypes, features,
// dpopNonces, options, tls }:
// `resources` are the APIs it issues tokens for (RFC 8707), `detailTypes` the types of authorization_details
// it knows (RFC 9396).
// `dpopNonces` makes it give DPoP nonces (RFC 9449 section 8), and demand them if it is "required".
// `features` and `options` are merged into the server's own configuration; `tls` is { cert, key, ca, mtlsPort,
// sidePort }, paths of PEM files, and makes it an https server. At `mtlsPort`, of which its metadata speaks as
// mtls_endpoint_aliases, it asks for client certificates (RFC 8705); at `sidePort` is the side-channel over http.
// Prints "listening PORT" when ready and exits when its standard input closes, so that it never
// outlives the test. Everything under /test/ is the test's own side-channel:
//   GET  /test/counts          token requests by grant_type, and "injected", "total", "revocation"
//   GET  /test/token?value=T   whether an access token is live, and whose it is
//   GET  /test/asked           the parameters of every authorization request, pushed ones too, as understood
//   GET  /test/grants          grants that live
//   POST /test/revoke          revokes every grant, as a person does in their account settings
//   POST /test/lifetime        { seconds } of the access tokens issued from now on
//   POST /test/fail            { times, status?, body?, headers?, delayMs?, hang?, reset? } at the token endpoint
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider, errors } from 'oidc-provider';

const config = JSON.parse(process.argv[2]);
const issuer = `${config.tls ? 'https' : 'http'}://127.0.0.1:${config.port}`;
const counts = { total: 0, injected: 0, revocation: 0, pushed: 0, certified: 0 };
const asked = [];
const grants = new Map();
let failure = { times: 0 };
let accessTokenSeconds = config.accessTokenSeconds ?? 3600;

const jwk = (type, options, extra) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), use: 'sig', ...extra,
});

// What these features need of us is functions.
const further = {};
if (config.resources) {
  further.resourceIndicators = {
    enabled: true,
    defaultResource: (_ctx, _client, oneOf) => oneOf,
    useGrantedResource: () => true,
    getResourceServerInfo: (_ctx, resource) => {
      if (!config.resources.includes(resource)) throw new errors.InvalidTarget();
      return { scope: 'openid offline_access calendar files', audience: resource, accessTokenFormat: 'opaque' };
    },
  };
}
if (config.detailTypes) {
  const known = (_ctx, detail) => { if (!detail.type) throw new errors.InvalidAuthorizationDetails(); };
  further.richAuthorizationRequests = {
    enabled: true,
    types: Object.fromEntries(config.detailTypes.map((type) => [type, { validate: known }])),
    authorizationDetailsForGrantSource: (ctx) => ctx.oidc.grant.rar ?? JSON.parse(ctx.oidc.params.authorization_details ?? '[]'),
    authorizationDetailsForAccessToken: (_ctx, _token, source) => source?.rar,
    authorizationDetailsForIntrospection: (_ctx, token) => token.rar,
  };
}
if (config.dpopNonces) {
  further.dPoP = {
    enabled: true, nonceSecret: randomBytes(32), requireNonce: () => config.dpopNonces === 'required',
  };
}
// The certificate that the connection was opened with, if it was asked for one.
const peerCertificate = (ctx) => ctx.req.socket.getPeerX509Certificate?.();
let discovery = {};
if (config.tls) {
  further.mTLS = {
    enabled: true,
    certificateBoundAccessTokens: true,
    selfSignedTlsClientAuth: true,
    tlsClientAuth: true,
    getCertificate: (ctx) => peerCertificate(ctx)?.toString(),
    certificateAuthorized: (ctx) => ctx.req.socket.authorized,
    certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_san_dns'
      && peerCertificate(ctx).subjectAltName.split(', ').includes(`DNS:${expected}`),
  };
  const alias = (path) => `https://127.0.0.1:${config.tls.mtlsPort}${path}`;
  discovery = {
    mtls_endpoint_aliases: {
      token_endpoint: alias('/token'),
      revocation_endpoint: alias('/token/revocation'),
      introspection_endpoint: alias('/token/introspection'),
    },
  };
}

const provider = new Provider(issuer, {
  clients: config.clients,
  scopes: config.scopes ?? ['openid', 'offline_access', 'calendar'],
  jwks: {
    keys: [
      jwk('rsa', { modulusLength: 2048 }, { alg: 'RS256', kid: 'rsa' }),
      jwk('ec', { namedCurve: 'P-256' }, { alg: 'ES256', kid: 'ec' }),
    ],
  },
  cookies: { keys: ['only for tests'] },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    ...further,
    ...config.features,
  },
  // Without its guard against addresses like 127.0.0.1, where the clients' key sets are here.
  fetch: (url, { dispatcher: _guard, ...options }) => fetch(url, options),
  discovery,
  rotateRefreshToken: config.rotate ?? true,
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  ttl: {
    AccessToken: () => accessTokenSeconds,
    ClientCredentials: () => accessTokenSeconds,
    AuthorizationCode: 60,
    IdToken: 3600,
    RefreshToken: 86400,
    Grant: 86400,
    Interaction: 3600,
    Session: 86400,
  },
  ...(config.detailTypes && { clientDefaults: { authorization_details_types: config.detailTypes } }),
  ...config.options,
});

provider.on('grant.saved', (grant) => grants.set(grant.jti, { id: grant.jti, account: grant.accountId, client: grant.clientId }));
provider.on('grant.revoked', (_ctx, id) => grants.delete(id));
provider.on('grant.destroyed', (grant) => grants.delete(grant.jti));
provider.on('server_error', (_ctx, error) => console.error(error));

const plain = (params) => Object.fromEntries(Object.entries(params ?? {}).filter(([, value]) => value !== undefined));

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/auth') asked.push(plain(ctx.oidc?.params));
  if (ctx.method !== 'POST') return;
  if (ctx.path === '/request') {
    counts.pushed += 1;
    if (ctx.status === 201) asked.push(plain(ctx.oidc.params));
  } else if (ctx.path === '/token') {
    const grantType = ctx.oidc?.params?.grant_type ?? ctx.oidc?.body?.grant_type ?? 'unknown';
    counts[grantType] = (counts[grantType] ?? 0) + 1;
    if (peerCertificate(ctx)) counts.certified += 1;
  } else if (ctx.path === '/token/revocation') {
    counts.revocation += 1;
  }
});

async function revokeGrant(id) {
  await provider.AccessToken.revokeByGrantId(id);
  await provider.RefreshToken.revokeByGrantId(id);
  await provider.Grant.adapter.destroy(id);
  grants.delete(id);
}

async function describeToken(value) {
  const token = await provider.AccessToken.find(value) ?? await provider.ClientCredentials.find(value);
  const live = Boolean(token) && !token.isExpired && (!token.grantId || grants.has(token.grantId));
  return { live, account: token?.accountId, client: token?.clientId, scope: token?.scope, audience: token?.aud, details: token?.rar, jkt: token?.jkt, x5t: token?.['x5t#S256'] };
}

async function sideChannel(request, response, url) {
  let body = '';
  for await (const chunk of request) body += chunk;
  let answer = {};
  switch (url.pathname) {
    case '/test/counts': answer = counts; break;
    case '/test/token': answer = await describeToken(url.searchParams.get('value')); break;
    case '/test/asked': answer = asked; break;
    case '/test/grants': answer = [...grants.values()]; break;
    case '/test/revoke': await Promise.all([...grants.keys()].map(revokeGrant)); break;
    case '/test/lifetime': accessTokenSeconds = JSON.parse(body).seconds; break;
    case '/test/fail': failure = JSON.parse(body); break;
    default: response.statusCode = 404;
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(answer));
}

function injectFailure(request, response) {
  failure.times -= 1;
  counts.injected += 1;
  request.resume();
  if (failure.hang) return;
  if (failure.reset) { request.socket.resetAndDestroy(); return; }
  response.writeHead(failure.status ?? 500, { 'content-type': 'application/json', ...failure.headers });
  response.end(failure.body ?? '{"error":"server_error"}');
}

const handle = provider.callback();
const listener = async (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/test/')) return sideChannel(request, response, url);
  if (url.pathname === '/token' && request.method === 'POST') {
    counts.total += 1;
    const { times, delayMs, status } = failure;
    if (times > 0) {
      if (delayMs) await new Promise((resolve) => { setTimeout(resolve, delayMs); });
      if (!delayMs || status) return injectFailure(request, response);
      failure.times -= 1;
    }
  }
  if (config.omitIss) dropIss(response);
  return handle(request, response);
};
const tls = config.tls && {
  cert: readFileSync(config.tls.cert), key: readFileSync(config.tls.key), ca: readFileSync(config.tls.ca),
};
const server = tls ? createTlsServer(tls, listener) : createServer(listener);
const others = tls
  ? [[createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, listener), config.tls.mtlsPort],
    [createServer(listener), config.tls.sidePort]]
  : [];

// A server from before RFC 9207: no `iss` in its authorization responses.
function dropIss(response) {
  const setHeader = response.setHeader.bind(response);
  response.setHeader = (name, value) => {
    if (name.toLowerCase() !== 'location') return setHeader(name, value);
    const target = new URL(value, issuer);
    target.searchParams.delete('iss');
    return setHeader(name, target.href);
  };
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
const listening = ([each, port]) => new Promise((resolve) => { each.listen(port, '127.0.0.1', resolve); });
await Promise.all([[server, config.port], ...others].map(listening));
console.log(`listening ${config.port}`);
