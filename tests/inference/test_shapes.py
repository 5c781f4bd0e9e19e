import json

import pytest

from jaxalign.data.packing import Shape
from jaxalign.errors import UserError
from jaxalign.inference.shapes import keep_shapes, kept_shapes

SHAPE = {"rows": 1, "tokens": 2, "predictions": 3, "blocks": 4}


def test_the_shapes_of_a_part_come_back(tmp_path):
    keep_shapes(tmp_path / "s", 1, [Shape(9, 9, 9)])
    keep_shapes(tmp_path / "s", 1, [Shape(1, 2, 3), Shape(1, 2, 3, 4)])
    keep_shapes(tmp_path / "s", 2, [])
    assert kept_shapes(tmp_path / "s", 1) == [Shape(1, 2, 3), Shape(1, 2, 3, 4)]
    assert kept_shapes(tmp_path / "s", 3) == []


@pytest.mark.parametrize("shape", [5, None, [1], {}, SHAPE | {"more": 1}, SHAPE | {"rows": True}, SHAPE | {"rows": -1}])
def test_a_damaged_shape_is_named_with_its_line(tmp_path, shape):
    path = tmp_path / "s"
    path.write_text("".join(json.dumps({"part": 1, "shapes": [one]}) + "\n" for one in (SHAPE, shape)))
    with pytest.raises(UserError) as error:
        kept_shapes(path, 1)
    flaw = "'shapes 1' is missing or damaged"
    assert str(error.value) == f"{path}, line 2: {flaw}; remove the line, and type the command again"
