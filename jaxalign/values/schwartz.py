"""Schwartz's ten basic values, the four groups that they form, and the ValueEval categories that belong to them."""

VALUES: tuple[str, ...] = (
    "achievement",
    "benevolence",
    "conformity",
    "hedonism",
    "power",
    "security",
    "self_direction",
    "stimulation",
    "tradition",
    "universalism",
)
"""The ten values; every vector of scores in this project is in this order."""

GROUPS: dict[str, tuple[str, ...]] = {
    "openness_to_change": ("self_direction", "stimulation"),
    "self_enhancement": ("hedonism", "achievement", "power"),
    "conservation": ("security", "conformity", "tradition"),
    "self_transcendence": ("benevolence", "universalism"),
}
"""The four groups as Choi et al. (2025) form them; Schwartz himself puts hedonism between the first two."""

CIRCLE: tuple[str, ...] = tuple(value for group in GROUPS.values() for value in group)
"""The values in the order of Schwartz's circle, cut open before self-direction: neighbours are compatible."""

LEVEL2: dict[str, str] = {
    "Self-direction: thought": "self_direction",
    "Self-direction: action": "self_direction",
    "Stimulation": "stimulation",
    "Hedonism": "hedonism",
    "Achievement": "achievement",
    "Power: dominance": "power",
    "Power: resources": "power",
    "Security: personal": "security",
    "Security: societal": "security",
    "Tradition": "tradition",
    "Conformity: rules": "conformity",
    "Conformity: interpersonal": "conformity",
    "Benevolence: caring": "benevolence",
    "Benevolence: dependability": "benevolence",
    "Universalism: concern": "universalism",
    "Universalism: nature": "universalism",
    "Universalism: tolerance": "universalism",
    "Universalism: objectivity": "universalism",
}
"""Published level-2 category -> value. Face and Humility belong to none of the ten."""


def phrase(value: str) -> str:
    """Return the name of a value or group as written inside a sentence: `self_direction` -> `self-direction`."""
    return value.replace("_", "-") if value in VALUES else value.replace("_", " ").replace("self ", "self-")


def label(value: str) -> str:
    """Return the name of a value or group as written in a heading: `self_direction` -> `Self-direction`."""
    return phrase(value).capitalize()
