"""JPEG files to measure on: colour noise with the spectrum of photographs, plus flat shapes with
hard edges."""

import io

import numpy as np
from PIL import Image

# Amplitude falls as frequency to the power of minus this; colour is smoother than brightness.
LUMA, CHROMA = 1.2, 1.6


def photo_like(seed: int, height: int = 480, width: int = 640) -> np.ndarray:
    """An image (height, width, 3) uint8 with about the spectrum of natural images: amplitude falls
    as 1 / frequency.

    Source of the spectrum: D. J. Field, "Relations between the statistics of natural images and the
    response properties of cortical cells", J. Opt. Soc. Am. A 4, 1987.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal((3, height, width)))
    falloff = np.stack([frequency**LUMA, frequency**CHROMA, frequency**CHROMA])
    planes = np.fft.irfft2(noise / falloff, s=(height, width))
    luma, blue, red = planes / planes.std(axis=(1, 2), keepdims=True)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(12):
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
        radius_y, radius_x = rng.uniform(0.05, 0.3, 2) * (height, width)
        inside = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < 1
        luma[inside] += rng.normal(0, 0.8)
        blue[inside] += rng.normal(0, 0.8)
    # Colour varies less than brightness.
    colours = np.stack(
        [luma + 0.4 * red, luma - 0.2 * red - 0.1 * blue, luma + 0.4 * blue], axis=-1
    )
    return np.clip(colours * 42 + 118, 0, 255).astype(np.uint8)


def jpeg_bytes(seed: int, height: int = 480, width: int = 640, quality: int = 88) -> bytes:
    """`photo_like` as a JPEG with Pillow's usual chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(photo_like(seed, height, width)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
