"""Chat completions without a model: `MODEL HOST PORT [SECONDS [ASKED]]`.

Each answer comes after some seconds; ASKED is a file that gets a line for each call, its content.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

model, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
asked = sys.argv[5] if len(sys.argv) > 5 else os.devnull


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"data": [{"id": model}]})

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(asked, "a") as lines:
            lines.write(call["messages"][0]["content"] + "\n")
        time.sleep(seconds)
        message = {"role": "assistant", "content": f"said by {os.getpid()}"}
        self.reply({"choices": [{"message": message, "finish_reason": "stop"}]})

    def reply(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


print("listens", flush=True)
ThreadingHTTPServer((host, port), Handler).serve_forever()
