"""Serves mlx_lm's HTTP server on a unix socket, for one model, in a process that has no network.

mlx_lm.server listens on TCP only. Its request handler does not care about the kind of socket, so this
program replaces the one function that opens it. It also pins the model: requests may name another one in
mlx_lm, and one that cannot be had would unload this one.
"""

import resource
import socket
import sys
from http.server import ThreadingHTTPServer

# mlx_lm sets the number of open files when it is imported; the launcher has set it, for good.
resource.setrlimit = lambda *_: None

import mlx_lm.server as server  # noqa: E402


class UnixHTTPServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    request_queue_size = 128

    def server_bind(self):
        # HTTPServer's own asks the resolver for the name of a TCP address.
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self):
        # The handler expects a host and a port, to log them.
        connection, _ = super().get_request()
        return connection, ("local", 0)


def serve_on(path):
    def run(host, port, response_generator, *rest, **named):
        def handler(*args, **kwargs):
            return server.APIHandler(
                response_generator, *args, system_fingerprint="mlx", **kwargs
            )

        UnixHTTPServer(path, handler).serve_forever()

    return run


def only_the_default(load):
    def pinned(self, model_path, adapter_path=None, draft_model_path=None):
        return load(self, "default_model", None, "default_model")

    return pinned


def main():
    path = sys.argv.pop(1)
    if not hasattr(server, "_run_http_server"):
        sys.exit("this version of mlx-lm has no _run_http_server; use another (0.31 is known to work)")
    server._run_http_server = serve_on(path)
    server.ModelProvider.load = only_the_default(server.ModelProvider.load)
    server.main()


main()
