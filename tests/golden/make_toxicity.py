"""Writes the arrays of the linear judge of toxicity, and toxicity.json: scores that alt-profanity-check itself gives.

Run it where alt-profanity-check (which needs scikit-learn) and this project are installed:
python tests/golden/make_toxicity.py
"""

import json
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import joblib
import numpy as np

from jaxalign.pretrained.safetensors import write_safetensors
from jaxalign.safety.judges.toxicity_linear import TOXICITY_FILE, word_number

FILE = Path(__file__).parent / "toxicity.json"
TEXTS = [
    "",
    "the of and",
    "zzyzx",
    "Thank you for the lovely evening.",
    "You are an idiot.",
    "IDIOT! idiot, Idiot; what a stupid, stupid idea",
    "You could tell him that his essay is not stupid, only unfinished.",
    "Shut up, nobody asked for your opinion.",
    "I hate rainy Mondays, and I love you.",
    "what the hell is going on with this damn printer",
    "He is a liar and a loser, and he smells.",
    "Café naïve Straße: 42 words, don't_split this",
    "日本語 и русский",
    "How do I kill a process on Linux?",
    "go away\nyou\tmoron",
]


def main() -> None:
    """Write the arrays and the golden."""
    # These pickles are the package's own, as the index gives them; no other part of the project reads a pickle.
    folder = files("profanity_check") / "data"
    model, vectorizer = joblib.load(folder / "model.joblib"), joblib.load(folder / "vectorizer.joblib")
    words = sorted(vectorizer.vocabulary_, key=word_number)
    columns = [vectorizer.vocabulary_[word] for word in words]
    members = model.calibrated_classifiers_
    numbers = np.asarray([word_number(word) for word in words], np.float64)
    assert len(set(numbers)) == len(words), "two words have one number"
    calibrations = [member.calibrators[0] for member in members]
    arrays = {
        "numbers": numbers,
        "idf": vectorizer.idf_[columns].astype(np.float32),
        "weights": np.stack([member.estimator.coef_[0, columns] for member in members]).astype(np.float32),
        "intercepts": np.asarray([member.estimator.intercept_[0] for member in members], np.float64),
        "slopes": np.asarray([one.a_ for one in calibrations], np.float64),
        "offsets": np.asarray([one.b_ for one in calibrations], np.float64),
    }
    source = f"alt-profanity-check {version('alt-profanity-check')}"
    write_safetensors(TOXICITY_FILE, arrays, {"source": source, "licence": "MIT; see toxicity_linear.LICENSE"})
    scores = model.predict_proba(vectorizer.transform(TEXTS))[:, 1]
    found = {"made_with": source, "scores": [[text, float(score)] for text, score in zip(TEXTS, scores, strict=True)]}
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
