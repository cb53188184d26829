from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advgen.data.decode import box_mean
from advgen.errors import UserError
from advgen.images import box_down, grid, save_png, text_of, to_bytes, to_signed


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_every_byte_comes_back() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    signed = to_signed(values)
    assert signed.dtype == torch.float32
    assert (signed[0], signed[255]) == (-1.0, 1.0)
    torch.testing.assert_close(signed.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=2e-7)
    assert torch.equal(to_bytes(signed), values)
    assert torch.equal(values, torch.arange(256, dtype=torch.uint8))  # not changed in place


def test_values_outside_are_clipped_and_others_go_to_the_nearest() -> None:
    step = 2 / 255
    values = torch.tensor([-7.0, 7.0, -1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.49 * step, 1 - 0.51 * step, 0.1 * step])
    kept = values.clone()
    assert to_bytes(values).tolist() == [0, 255, 0, 1, 255, 254, 128]
    assert torch.equal(values, kept)
    assert to_bytes(values.bfloat16()).dtype == torch.uint8


@pytest.mark.parametrize("resolution", [16, 8, 4, 1])
def test_bytes_are_made_smaller_as_the_stream_does(resolution: int) -> None:
    images = random_bytes(5, 3, 16, 16)
    small = box_down(images, resolution)
    assert small.dtype == torch.uint8
    np.testing.assert_array_equal(small.numpy(), box_mean(images.numpy(), resolution))


def test_floats_are_made_smaller_without_rounding() -> None:
    images = random_bytes(2, 1, 8, 8).float()
    expected = images.reshape(2, 1, 2, 4, 2, 4).mean(dim=(3, 5))
    torch.testing.assert_close(box_down(images, 2), expected)
    assert box_down(images, 8) is images


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_fills_row_by_row(channels: int) -> None:
    images = random_bytes(6, channels, 4, 5)
    sheet = grid(images, columns=3)
    assert sheet.shape == (2 * 4, 3 * 5, 3)
    for number in range(6):
        row, column = divmod(number, 3)
        tile = sheet[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
        assert torch.equal(tile, images[number].expand(3, 4, 5).permute(1, 2, 0))


def test_magnified_pixels_are_squares() -> None:
    images = random_bytes(2, 3, 3, 3)
    large, small = grid(images, 2, magnify=4), grid(images, 2)
    assert large.shape == (12, 24, 3)
    assert torch.equal(large[::4, ::4], small)
    assert torch.equal(large, small.repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_a_png_holds_the_pixels_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    sheet = grid(random_bytes(4, 3, 8, 8), 2)
    path = tmp_path / "new" / "sheet.png"
    save_png(path, sheet)
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), sheet.numpy())
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_a_png_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    save_png(path, grid(random_bytes(1, 3, 8, 8), 1))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_png(path, torch.zeros(4, 4, 3))  # floats are no PNG
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_a_png_says_what_it_is(tmp_path: Path) -> None:
    about = {"Software": "advgen 1", "run": "süß", "label": "雪", "seed": "3"}
    path = tmp_path / "grey.png"
    grey = random_bytes(8, 8, 1)
    save_png(path, grey, about)
    assert text_of(path) == about
    with Image.open(path) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), grey[..., 0].numpy())
    save_png(path, grey)
    assert text_of(path) == {}
    for content in (b"", b"no picture", path.read_bytes()[:20]):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(UserError, match="bad.png: is no PNG file"):
            text_of(tmp_path / "bad.png")
