"""`flmm chat IMAGE --lmm ... --checkpoint ...`: questions in the terminal, answers with grounded
pictures."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option

from flmm.commands.options import add_model_options, grounder_from_options, say


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands,
        "chat",
        run,
        "ask about an image; each answer is drawn with the masks of its phrases",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument(
        "-q",
        "--question",
        action="append",
        help="ask this instead of reading questions; repeatable",
    )
    add_model_options(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, help="longest answer; default: 512, or what fits"
    )
    add_option(
        parser,
        "--out",
        short="-o",
        metavar="DIR",
        help="folder of the pictures; default: IMAGE.chat",
    )


def run(options: Namespace) -> None:
    """Answer the questions, see `add`."""
    from flmm.dialogue.answers import NoPhrasesError, answer_spans, ask
    from flmm.grounders.images import PictureError, binary_masks, save_grounding
    from flmm.pictures.files import picture_path, read_image
    from flmm.text.phrases import has_spacy

    image = read_image(options.image)
    folder = options.out or Path(f"{options.image.stem}.chat")
    picture_path(folder / "answer-1.png")
    grounder = grounder_from_options(options)
    if not has_spacy():
        say(
            "phrases are found by simple rules; for better ones: pip install 'flmm[chat]' and "
            "en_core_web_sm"
        )
    for number, question in enumerate(questions(options.question), start=next_number(folder)):
        say("answering ...")
        try:
            answer = ask(grounder.lmm, image, question, max_new_tokens=options.max_new_tokens)
        except ValueError as mistake:  # such as a question that is too long
            if options.question:
                raise
            say(str(mistake))
            continue
        print(answer.text.strip() or "(the model said nothing)", flush=True)
        try:
            spans = answer_spans(answer)
        except NoPhrasesError:
            say("nothing in this answer can be grounded")
            continue
        said = {"image": options.image.name, "question": question, "answer": answer.text}
        path = folder / f"answer-{number}.png"
        phrases = [answer.text[start:end] for start, end in spans]
        masks = binary_masks(grounder.ground_answer(image, answer, spans))
        try:
            save_grounding(path, image, masks, phrases, title=answer.text.strip(), about=said)
        except PictureError as fault:
            say(str(fault))
            path = path.with_suffix(".json")
        print(f"  {', '.join(phrases)} -> {path}", flush=True)


def next_number(folder: Path) -> int:
    """Return the number after the last answer in a folder, so that no answer is replaced."""
    numbers = [0]
    for path in folder.glob("answer-*"):
        if (number := path.stem.removeprefix("answer-")).isdigit():
            numbers.append(int(number))
    return max(numbers) + 1


def questions(given: Sequence[str] | None) -> Iterator[str]:
    """Those of the command line, or what is typed until an empty line or the end of the input."""
    if given:
        yield from given
        return
    say("type a question; an empty line ends the conversation")
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question
