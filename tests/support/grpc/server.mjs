// A gRPC server without TLS. Prints `listening PORT`, and ends with its standard input.
import grpc from '@grpc/grpc-js';
import { Echo, options } from './service.mjs';

let cancelled = 0;

const authorization = (call) => call.metadata.get('authorization').join('|');

/** Answers metadata with metadata: at the head, and in the trailers. */
function metadata(call) {
  const head = new grpc.Metadata();
  head.set('x-seen', call.metadata.get('x-asked').join('|'));
  head.set('x-seen-bin', Buffer.concat(call.metadata.get('x-asked-bin')));
  call.sendMetadata(head);
  const trailers = new grpc.Metadata();
  trailers.set('x-done', 'yes');
  trailers.set('x-done-bin', Buffer.from([0, 255, 1]));
  return trailers;
}

function failure(call) {
  const trailers = new grpc.Metadata();
  trailers.set('x-why', 'because');
  return { code: grpc.status.NOT_FOUND, details: `nothing called ${call.request.payload} – sorry`, metadata: trailers };
}

const server = new grpc.Server(options);
server.addService(Echo.service, {
  Say(call, done) {
    const trailers = metadata(call);
    done(null, { payload: call.request.payload, authorization: authorization(call) }, trailers);
  },
  Repeat(call) {
    const trailers = metadata(call);
    for (let number = 0; number < call.request.number; number += 1) {
      call.write({ payload: call.request.payload, number, authorization: authorization(call) });
    }
    call.end(trailers);
  },
  Gather(call, done) {
    const payloads = [];
    call.on('data', (message) => payloads.push(message.payload));
    call.on('end', () => {
      const payload = Buffer.concat(payloads);
      done(null, { payload, number: payloads.length, authorization: authorization(call) });
    });
  },
  Talk(call) {
    call.on('data', (message) => {
      call.write({ payload: message.payload, number: message.number + 1, authorization: authorization(call) });
    });
    call.on('end', () => call.end());
  },
  Fail(call, done) {
    done(failure(call));
  },
  FailLate(call) {
    call.write({ payload: call.request.payload });
    call.emit('error', failure(call));
  },
  Wait(call) {
    call.on('cancelled', () => {
      cancelled += 1;
    });
    call.write({ payload: call.request.payload });
  },
  Cancelled(call, done) {
    done(null, { number: cancelled });
  },
});

server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening ${port}`);
});
process.stdin.on('end', () => process.exit()).resume();
