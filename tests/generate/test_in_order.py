"""A stream of results read from plain code."""

import asyncio
import signal

import pytest

from feldspar.generate.in_order import run_stream


def test_ctrl_c_as_a_result_is_handed_out_closes_the_stream_and_is_raised():
    closed = []

    async def numbers():
        try:
            for number in range(10):
                if number == 3:
                    # After this step of the task, before the loop stops for it.
                    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_stream(numbers()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed == [True]
