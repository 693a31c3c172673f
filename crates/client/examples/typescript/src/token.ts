// The token of the key that calls goes with every call.

import type { Interceptor } from "@connectrpc/connect";

export function withToken(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}
