"""The loss of a run as a picture."""

from pathlib import Path

from clim_train.run.metrics import read_metrics

LOSS_PICTURE = "loss.png"


def write_loss_curve(folder: str | Path) -> Path | None:
    """Draw the losses in a run's `metrics.jsonl`; return the picture, None for fewer than two."""
    lines = [line for line in read_metrics(folder) if "loss" in line]
    if len(lines) < 2:
        return None

    # Imported here: matplotlib takes a second, which the start of a run need not wait for.
    from clim_eval.pictures import PALETTE, STYLE, write_png
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = [line["step"] for line in lines]
    losses = [line["loss"] for line in lines]
    with style.context(STYLE):
        figure = Figure(figsize=(6, 3.2))
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        axis.plot(steps, losses, color=PALETTE[0], linewidth=1.6)
        axis.plot(steps[-1:], losses[-1:], "o", color=PALETTE[0])
        axis.set_xlabel("step")
        axis.set_ylabel("loss of training")
        axis.set_title(f"loss {losses[0]:.4g} → {losses[-1]:.4g} in {steps[-1]:,} steps")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)

    path = Path(folder) / LOSS_PICTURE
    write_png(path, figure)
    return path
