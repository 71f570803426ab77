"""llama.cpp's server for a GGUF file: the command that starts one, and, run as a script by any
Python that has the wheel `xllamacpp`, the server itself.

    python llama_server.py MODEL.gguf 8080

Alone it needs nothing of this package, so that the wheel may lie in an environment of its own.
"""

from __future__ import annotations

import shlex
import sys
import time

SLOTS = 4
"""Questions that are answered at once."""
SLOT_TOKENS = 2048
"""Context of each."""


def serve(model: str, port: int, threads: int) -> None:
    """Serve `model` at 127.0.0.1:`port`, by its own chat template, until the process is ended."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = SLOTS, SLOT_TOKENS * SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.model_alias = {model}
    params.use_jinja = True
    server = xllamacpp.Server(params)
    print("listening", server.listening_address, flush=True)
    while True:
        time.sleep(60)


def find_command() -> str | None:
    """What starts a server here, with `{model}` and `{port}` to be filled in: llama.cpp's own
    `llama-server`, or the wheel `xllamacpp`. None where there is neither."""
    import importlib.util

    from feldspar.publish.gguf import find_program

    program = find_program("llama-server")
    if program is not None:
        sizes = f"-c {SLOT_TOKENS * SLOTS} -np {SLOTS} --jinja --host 127.0.0.1"
        return f"{shlex.quote(str(program))} -m {{model}} --port {{port}} -a {{model}} {sizes}"
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    # -P: the modules beside this file are not to be found by their short names.
    return f"{shlex.quote(sys.executable)} -P {shlex.quote(__file__)} {{model}} {{port}}"


if __name__ == "__main__":
    # Its threads spin while they wait: on busy shared cores two are slower than one.
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
