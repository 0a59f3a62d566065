"""Colours and style of all figures."""

from __future__ import annotations

# Okabe and Ito's colours, told apart also without full colour vision; black and yellow are left
# out.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")

INK = "#222222"

SIDE = 3.3  # inches of a panel's longer side

STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
