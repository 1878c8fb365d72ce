// The service of echo.proto.
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

export const { Echo } = grpc.loadPackageDefinition(
  loadSync(fileURLToPath(new URL('echo.proto', import.meta.url)), { defaults: true }),
).claviger.test;

/** Messages are larger than gRPC's own limit of 4 MiB. */
export const options = {
  'grpc.max_receive_message_length': 16 * 1024 * 1024,
  'grpc.max_send_message_length': 16 * 1024 * 1024,
};
