// `node client.mjs HOST:PORT AUTHORIZATION [NAME…]` makes these calls, or else all there are, and prints as JSON
// what came.
import grpc from '@grpc/grpc-js';
import { Echo, options } from './service.mjs';

const [address, authorization, ...names] = process.argv.slice(2);
const client = new Echo(address, grpc.credentials.createInsecure(), options);

function asked() {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', authorization);
  metadata.set('x-asked', 'what');
  metadata.set('x-asked-bin', Buffer.from([1, 254, 0]));
  return metadata;
}

const deadline = () => ({ deadline: Date.now() + 20_000 });

/** Metadata as plain lists, binary values in base64. */
function plain(metadata) {
  const names = Object.keys(metadata.getMap());
  const text = (value) => (Buffer.isBuffer(value) ? value.toString('base64') : value);
  return Object.fromEntries(names.map((name) => [name, metadata.get(name).map(text)]));
}

function seen(message) {
  const payload = message.payload.length > 100 ? message.payload.length : message.payload.toString();
  return { payload, authorization: message.authorization, number: message.number };
}

/** All that comes of a call, once it has ended. */
function outcome(call, answer) {
  const result = { messages: [] };
  return new Promise((resolve) => {
    call.on('metadata', (metadata) => { result.head = plain(metadata); });
    call.on('data', (message) => result.messages.push(seen(message)));
    call.on('error', () => {});
    call.on('status', (status) => {
      Object.assign(result, { code: status.code, details: status.details, trailers: plain(status.metadata) });
      // The callback of a call with one answer comes after its status.
      setImmediate(() => {
        if (answer?.message) result.messages.push(seen(answer.message));
        resolve(result);
      });
    });
  });
}

function one(method, message) {
  const answer = {};
  const call = client[method](message, asked(), deadline(), (_, came) => { answer.message = came; });
  return outcome(call, answer);
}

function gather(payloads) {
  const answer = {};
  const call = client.Gather(asked(), deadline(), (_, came) => { answer.message = came; });
  for (const payload of payloads) call.write({ payload });
  call.end();
  return outcome(call, answer);
}

function talk(rounds) {
  const call = client.Talk(asked(), deadline());
  call.on('data', (message) => {
    if (message.number === rounds) call.end();
    else call.write({ payload: message.payload, number: message.number });
  });
  call.write({ payload: Buffer.from('talk'), number: 0 });
  return outcome(call);
}

/** Turns away after the first message, and asks until the server knows. */
async function cancel() {
  const call = client.Wait({ payload: Buffer.from('wait') }, asked(), deadline());
  call.on('data', () => call.cancel());
  const result = await outcome(call);
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const asking = await one('Cancelled', {});
    if (asking.code !== grpc.status.OK) throw new Error(JSON.stringify(asking));
    result.cancelled = asking.messages[0].number;
    if (result.cancelled > 0) break;
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  return result;
}

const large = Buffer.alloc(4 * 1024 * 1024, 7);
const calls = {
  unary: () => one('Say', { payload: Buffer.from('hello') }),
  server_streaming: () => outcome(client.Repeat({ payload: Buffer.from('again'), number: 5 }, asked(), deadline())),
  client_streaming: () => gather(['a', 'b', 'c'].map((text) => Buffer.from(text))),
  bidirectional: () => talk(5),
  failing: () => one('Fail', { payload: Buffer.from('x') }),
  failing_late: () => outcome(client.FailLate({ payload: Buffer.from('y') }, asked(), deadline())),
  cancelling: cancel,
  large: () => one('Say', { payload: large }),
  at_once: async () => {
    const all = Array.from({ length: 50 }, (_, n) => one('Say', { payload: Buffer.from(`${n}`) }));
    return (await Promise.all(all)).map(({ code, messages }) => [code, messages[0]?.payload]);
  },
};
const results = {};
for (const name of names.length > 0 ? names : Object.keys(calls)) results[name] = await calls[name]();
client.close();
console.log(JSON.stringify(results));
