"""Speaks completions as a model server does, without a model: `MODEL PORT [options]`.

An answer is a function of prompt, seed and index alone. Each request leaves a line in `--asked`.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("port", type=int)
parser.add_argument("--asked", type=Path)
parser.add_argument("--called", help="Its name for the model, else the folder.")
parser.add_argument("--most", type=int, default=999, help="Answers in one reply.")
parser.add_argument("--dies-at", type=int, default=0, help="Which request it does not survive.")
parser.add_argument("--status", type=int, default=200)
parser.add_argument("--child", type=Path, help="Where to write the pids of it and of a child.")
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    num_asked = 0

    def do_GET(self):
        card = {"object": "model", "created": 0, "owned_by": "x"}
        card |= {"id": options.called or options.model, "root": options.model}
        self.reply({"object": "list", "data": [card]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.num_asked += 1
        if options.asked:
            with options.asked.open("a") as file:
                file.write(json.dumps(body) + "\n")
        if Handler.num_asked == options.dies_at:
            print("out of memory\nall is lost", flush=True)
            os._exit(3)
        if options.status != 200 or body["model"] != (options.called or options.model):
            self.reply({"error": {"message": "no more than 3"}}, options.status)
            return
        choices = [choice(body, index) for index in range(min(body["n"], options.most))]
        self.reply({"id": "x", "object": "text_completion", "choices": choices[::-1]})

    def reply(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def choice(body, index):
    drawn = hashlib.sha256(json.dumps([body["prompt"], body["seed"], index]).encode()).digest()
    if drawn[0] % 4 == 0:
        return {"index": index, "text": "It is", "finish_reason": "length"}
    text = "It is lovely." if drawn[1] % 2 else "It is dreadful."
    return {"index": index, "text": text, "finish_reason": "stop"}


if options.child:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    options.child.write_text(f"{os.getpid()} {child.pid}")
ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
