"""Places for workers on this machine, as a cluster gives them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path


class HerePlaces:
    """Gives as many workers as `nums` says, one try after another; the last number stays."""

    def __init__(self, *nums: int) -> None:
        self._nums = list(nums)
        self.processes: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def workers(self, log_folder: Path):
        log_folder.mkdir(parents=True, exist_ok=True)
        here = HereWorkers(self._nums.pop(0) if self._nums[1:] else self._nums[0], log_folder)
        self.processes = here.processes
        try:
            yield here
        finally:
            for process in here.processes:
                process.terminate()
                process.wait()


class HereWorkers:
    host = "127.0.0.1"

    def __init__(self, num: int, log_folder: Path) -> None:
        self.num, self._log_folder = num, log_folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self, command, variables):
        for rank in range(self.num):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.num)}
            with self._log_path(rank).open("wb") as log_file:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables | own,
                        stdout=log_file,
                        stderr=log_file,
                    )
                )

    def statuses(self):
        codes = [process.poll() for process in self.processes]
        return [128 - code if code is not None and code < 0 else code for code in codes]

    def last_words(self, rank):
        return self._log_path(rank).read_text().strip().replace("\n", " | ")

    def _log_path(self, rank: int) -> Path:
        return self._log_folder / f"worker-{rank + 1}.log"
