"""A server with OpenAI's chat protocol for tests, which answers from a list.

Tests import it as `from stub_judge import serve_judge` (pytest puts this folder on the path).
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def serve_judge(reply, *, statuses=()):
    """Yield (address, requests seen).

    reply: makes the text of a reply of the user's message. statuses: of the first requests, which
    are refused.
    """
    seen, refusals = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "headers": dict(self.headers), **body})
            status = refusals.pop(0) if refusals else 200
            text = reply(body["messages"][-1]["content"])
            content = {"choices": [{"message": {"role": "assistant", "content": text}}]}
            data = json.dumps(content if status == 200 else {"error": "not now"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
