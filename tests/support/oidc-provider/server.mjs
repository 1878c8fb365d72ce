// panva's oidc-provider, a certified server that we did not write, under the control of one test.
//
// argv[2] is JSON: { port, clients, scopes, accessTokenSeconds, rotate, omitIss, omitExpiresIn, resources,
// detailTypes, features, options, tls }:
// `resources` are the APIs it issues tokens for (RFC 8707), `detailTypes` the types of authorization_details
// it knows (RFC 9396).
// `features` and `options` are merged into the server's own configuration; `tls` is { cert, key, ca }, paths
// of PEM files, and makes it an https server that asks for client certificates.
// Prints "listening PORT" when ready and exits when its standard input closes, so that it never
// outlives the test. Everything under /test/ is the test's own side-channel:
//   GET  /test/counts          token requests by grant_type, and "injected", "total", "revocation", "introspection",
//                              "registration"
//   GET  /test/clients         clients that registered themselves and live, with all their metadata
//   POST /test/forget-clients  forgets them
//   GET  /test/token?value=T   whether an access token is live, and whose it is
//   GET  /test/asked           the parameters of every authorization request, pushed ones too, as understood
//   GET  /test/grants          grants that live
//   POST /test/revoke          revokes every grant, as a person does in their account settings
//   POST /test/lifetime        { seconds } of the access tokens issued from now on
//   POST /test/fail            { times, status?, body?, headers?, delayMs?, hang?, reset? } at the token endpoint
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { generateKeyPairSync } from 'node:crypto';
import { Provider, errors } from 'oidc-provider';

const config = JSON.parse(process.argv[2]);
const issuer = `${config.tls ? 'https' : 'http'}://127.0.0.1:${config.port}`;
const counts = { total: 0, injected: 0, revocation: 0, introspection: 0, registration: 0, pushed: 0 };
const asked = [];
const registered = new Map();
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
  ...config.options,
});

provider.on('grant.saved', (grant) => grants.set(grant.jti, { id: grant.jti, account: grant.accountId, client: grant.clientId }));
provider.on('grant.revoked', (_ctx, id) => grants.delete(id));
provider.on('grant.destroyed', (grant) => grants.delete(grant.jti));
provider.on('registration_create.success', (_ctx, client) => {
  counts.registration += 1;
  registered.set(client.clientId, client.metadata());
});
provider.on('registration_delete.success', (_ctx, client) => registered.delete(client.clientId));
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
    if (config.omitExpiresIn && ctx.body) delete ctx.body.expires_in;
  } else if (ctx.path === '/token/revocation') {
    counts.revocation += 1;
  } else if (ctx.path === '/token/introspection') {
    counts.introspection += 1;
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
  return { live, account: token?.accountId, client: token?.clientId, scope: token?.scope, audience: token?.aud, details: token?.rar };
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
    case '/test/clients': answer = [...registered.values()]; break;
    case '/test/forget-clients':
      await Promise.all([...registered.keys()].map((id) => provider.Client.adapter.destroy(id)));
      registered.clear();
      break;
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
const server = config.tls
  ? createTlsServer({
    cert: readFileSync(config.tls.cert), key: readFileSync(config.tls.key), ca: readFileSync(config.tls.ca),
    requestCert: true, rejectUnauthorized: false,
  }, listener)
  : createServer(listener);

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
server.listen(config.port, '127.0.0.1', () => console.log(`listening ${config.port}`));
