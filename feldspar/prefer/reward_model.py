"""A scalar reward model: a sequence classifier with one output, over a conversation in its own chat
template. A rival of the log ratio in `agree`, and a choice in its place (`prefer.reward`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from feldspar.config import PreferConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.prefer.served_reward_model import ServedRewardModel, connect_reward_model
from feldspar.prefer.served_scorer import Logged
from feldspar.progress import SILENT, Progress
from feldspar.student.model import find_device, find_model
from feldspar.student.model_files import quiet_transformers
from feldspar.student.scoring.log_probs import AnswerRow


class RewardModel:
    """One such model, loaded. Only safetensors are read and no code from the folder is run."""

    def __init__(self, path: str, student: StudentConfig) -> None:
        """Raises TrainingError with the cure where it cannot be loaded, or has another output."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = find_model(path)
        self.name = path
        self._device = find_device(student.device)
        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
                self._model: Any
                self._model, info = AutoModelForSequenceClassification.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise TrainingError(f"{path}: no reward model can be loaded: {reason}") from error
        if self._model.config.num_labels != 1 or info["missing_keys"]:
            raise TrainingError(
                f"{path}: no reward model: it has {self._model.config.num_labels} outputs and "
                f"{len(info['missing_keys'])} weights are missing; name a sequence classifier with "
                "one output"
            )
        if not self._tokenizer.chat_template:
            raise TrainingError(
                f"{path}: no chat template, so there is no telling how it is spoken to; add "
                "chat_template.jinja beside its tokenizer.json"
            )
        self._model.to(self._device).eval()

    def read(self, rows: Sequence[AnswerRow], progress: Progress = SILENT) -> list[float]:
        """The reward of each answer, in order. Raises TrainingError for one that is too long."""
        rewards = []
        with progress.task("rewards", len(rows), "answers") as task, torch.no_grad():
            for row in rows:
                ids = torch.tensor([self._ids(row)], device=self._device)
                rewards.append(float(self._model(input_ids=ids).logits[0, 0]))
                task.advance()
        return rewards

    def close(self) -> None:
        """Nothing was started for it."""

    def _ids(self, row: AnswerRow) -> list[int]:
        turns = [{"role": m.role, "content": m.content} for m in row.messages]
        turns.append({"role": "assistant", "content": row.answer})
        found = self._tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        longest = getattr(self._model.config, "max_position_embeddings", None) or len(found)
        if len(found) > longest:
            raise TrainingError(
                f"{self.name} reads {longest} tokens, and a prompt with its answer has "
                f"{len(found)}; leave such prompts out"
            )
        return [int(token) for token in found]


def open_reward_model(
    config: PreferConfig, student: StudentConfig, log_folder: Path
) -> RewardModel | ServedRewardModel:
    """The recipe's reward model, loaded or connected to. A server that is started for it logs to
    `log_folder`; `close` it at last."""
    if config.reward_model_server is not None:
        logged = Logged(folder=log_folder, role="reward_model_server")
        return connect_reward_model(config.reward_model_server, logged)
    assert config.reward_model is not None
    return RewardModel(config.reward_model, student)
