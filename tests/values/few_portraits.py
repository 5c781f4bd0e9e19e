"""The starter portraits with the wording of `conf/`, and an encoder of one token a letter that asks about them."""

import numpy as np
import yaml

from jaxalign.config.presets import CONF
from jaxalign.values.injection import make_prompts
from jaxalign.values.portraits import load_portraits, make_choice_prompts

END = 0


class Letters:
    """An encoder of one token a letter, with an end token."""

    def prompt(self, text):
        return np.array([ord(letter) for letter in text], np.int32)

    text = prompt

    def branches(self, prompt, texts, *, end=False):
        return self.prompt(prompt), [
            np.append(self.text(text), [END] if end else []).astype(np.int32) for text in texts
        ]


def decode(tokens):
    return "".join("<end>" if token == END else chr(token) for token in tokens)


PROMPTS = make_prompts(yaml.safe_load((CONF / "alignment" / "injection.yaml").read_text())["prompts"])
CHOICE = make_choice_prompts(yaml.safe_load((CONF / "benchmark" / "portraits.yaml").read_text())["prompts"])
PORTRAITS = load_portraits("starter")
ENCODER = Letters()
