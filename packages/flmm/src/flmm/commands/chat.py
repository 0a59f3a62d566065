"""`flmm chat IMAGE --lmm ... --checkpoint ...`: a conversation in the terminal, answers with
grounded pictures."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.command_line import Commands, add_command, add_option
from clim_data.files import check_output_folder

from flmm.commands.example import FOLDER, add_example_option, use_example
from flmm.commands.grounders import (
    add_grounder_options,
    grounder_from_options,
    say_unanswered,
    say_what_is_unknown,
)
from flmm.commands.options import (
    add_answer_options,
    add_model_options,
    add_score_option,
    say,
    say_how_phrases_are_found,
)

if TYPE_CHECKING:
    from PIL import Image

    from flmm.adapters.features import Answer
    from flmm.dialogue.conversation import Exchange
    from flmm.grounders.grounder import Grounder

FORGET = "/new"


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands,
        "chat",
        run,
        "talk about an image; each answer is drawn with the masks of its phrases",
    )
    image = parser.add_argument("image", metavar="IMAGE", help="a file or a URL")
    image.required = False  # --example can take its place
    parser.add_argument(
        "-q",
        "--question",
        action="append",
        help="ask this instead of reading questions; repeatable",
    )
    add_model_options(parser)
    add_grounder_options(parser)
    add_score_option(parser)
    add_answer_options(parser)
    add_option(
        parser,
        "--out",
        short="-o",
        metavar="DIR",
        help="folder of the pictures; default: IMAGE.chat",
    )
    add_example_option(parser)


def run(options: Namespace) -> None:
    """Answer the questions, see `add`."""
    from flmm.dialogue.conversation import Exchange
    from flmm.pictures.files import grounding_path, name_of_picture, read_image
    from flmm.text.prompts import DESCRIBE

    # Everything is checked before loading, which can take minutes.
    if any(not question.strip() for question in options.question or ()):
        raise ValueError("-q with an empty question: ask something, or leave out -q to type")

    use_example(options)
    if options.example:
        options.question = options.question or [DESCRIBE]
        options.out = options.out or Path(FOLDER) / "chat"

    image = read_image(options.image)
    name = name_of_picture(options.image)
    folder = options.out or Path(f"{Path(name).stem}.chat")
    check_output_folder(folder, "-o")
    grounding_path(folder / "answer-1.png")

    grounder = grounder_from_options(options)
    if not options.example:
        say_how_phrases_are_found()

    history: list[Exchange] = []
    number = next_number(folder)
    for question in questions(options.question):
        if question == FORGET:
            history.clear()
            continue
        try:
            answer = _answer(grounder, image, question, history, options)
        except ValueError as mistake:  # such as a question that is too long
            if options.question:
                raise
            say(str(mistake))
            continue

        about: dict[str, Any] = {
            "image": name,
            "orientation": "applied",  # masks lie on the upright picture
            "question": question,
            "answer": answer.text,
        }

        if answer.remembered:
            about["history"] = [list(turn) for turn in history[-answer.remembered :]]
        about["min_score"] = options.min_score
        _draw(grounder, image, answer, folder / f"answer-{number}.png", about)
        number += 1

        if answer.text.strip() and not options.no_history:
            history.append(Exchange(question, answer.text.strip()))


def _answer(
    grounder: "Grounder",
    image: "Image.Image",
    question: str,
    history: "Sequence[Exchange]",
    options: Namespace,
) -> "Answer":
    """Ask, and print the answer while it is written."""
    from flmm.dialogue.answers import ask

    say("answering ...")
    printer = AnswerPrinter()
    try:
        answer = ask(
            grounder.lmm,
            image,
            question,
            history=history,
            max_new_tokens=options.max_new_tokens,
            on_text=printer,
        )
    finally:
        printer.finish()
    if not answer.text.strip():
        print("(the model said nothing)", flush=True)
    if forgotten := len(history) - answer.remembered:
        say(f"the first {forgotten} of {len(history)} questions no longer fit the model's context")
    return answer


def _draw(
    grounder: "Grounder", image: "Image.Image", answer: "Answer", path: Path, about: dict[str, Any]
) -> None:
    """Ground the phrases of an answer and draw them."""
    from flmm.dialogue.answers import NoPhrasesError, answer_spans
    from flmm.grounders.grounder import NOT_IN_PICTURE, absent_phrases
    from flmm.grounders.images import (
        PhraseMarks,
        PictureError,
        labels_of_phrases,
        save_grounding,
    )

    try:
        spans = answer_spans(answer)
    except NoPhrasesError:
        say("nothing in this answer can be grounded: it names nothing that is there")
        return

    phrases = [answer.text[start:end] for start, end in spans]
    say_what_is_unknown(grounder, phrases)
    found = grounder.ground_answer(image, answer, spans)
    masks, scores = found.binary(about["min_score"]).cpu().numpy(), found.scores.tolist()
    in_picture = found.in_picture()
    about["score_kind"] = found.kind
    try:
        save_grounding(
            path,
            image,
            masks,
            phrases,
            scores=scores,
            marks=PhraseMarks.of(found),
            title=answer.text.strip(),
            about=about,
        )
    except PictureError as fault:
        say(str(fault))
        path = path.with_suffix(".json")
    labels = labels_of_phrases(phrases, scores)
    for number, mask in enumerate(masks):
        if not mask.any():
            labels[number] += " (not found)"
    print(f"  {', '.join(labels)} -> {path}")
    if absent := absent_phrases(phrases, in_picture):
        print(f"  {NOT_IN_PICTURE}: {', '.join(absent)}")
    sys.stdout.flush()
    say_unanswered(grounder)


class AnswerPrinter:
    """Prints an answer piece by piece, without the spaces around it."""

    def __init__(self) -> None:
        self._begun = False
        self._spaces = ""  # they are printed once a word follows

    def __call__(self, piece: str) -> None:
        """Print the next piece of the answer."""
        text = self._spaces + piece
        text = text if self._begun else text.lstrip()
        shown = text.rstrip()
        self._spaces = text[len(shown) :]
        if shown:
            self._begun = True
            print(shown, end="", flush=True)

    def finish(self) -> None:
        """End the line, if there is one."""
        if self._begun:
            print(flush=True)


def next_number(folder: Path) -> int:
    """Return the number after the last answer in a folder, so that no answer is replaced."""
    numbers = [0]
    for path in folder.glob("answer-*"):
        if (number := path.stem.removeprefix("answer-")).isdigit():
            numbers.append(int(number))
    return max(numbers) + 1


def questions(given: Sequence[str] | None) -> Iterator[str]:
    """Yield the questions of the command line, or those that are typed until an empty line or the
    end of the input."""
    if given:
        yield from given
        return
    say(f"type a question; an empty line ends the conversation, {FORGET} begins a new one")
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question
