"""Requests that people make of services, composed of parts: corpora hold few, and label lists are often about them.

python -m nautile.tasks.backbone.requests DATA RUN

Nobody labels them; the teacher's vectors say what they mean. About an eighth are names of what is asked, as labels are,
the rest is worded as people write. Labels of sets that are kept for zero-shot figures (`EXCLUDED`) are not among them.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nautile.engine.memory import keep_pages
from nautile.errors import NautileError
from nautile.tasks.backbone.teacher import Teacher
from nautile.tasks.backbone.texts import EXCLUDED, held_out, key, save_json
from nautile.tasks.backbone.vectors import Vectors
from nautile.tasks.corpus import rows
from nautile.tasks.zero_shot.labels import spoken

COUNT = 120_000
THINGS = {
    "banking": (
        "card, debit card, credit card, virtual card, account, savings account, transfer, bank transfer, "
        "payment, cash withdrawal, standing order, direct debit, deposit, cheque, PIN, statement, exchange "
        "rate, foreign currency, balance, overdraft, loan, mortgage, interest rate, cash machine, contactless "
        "payment, beneficiary"
    ),
    "shopping": (
        "order, parcel, delivery, return, exchange, item, gift card, discount code, shopping basket, receipt, "
        "product, size, pre-order, wish list, warranty, seller, price, sale"
    ),
    "travel": (
        "flight, booking, ticket, seat, boarding pass, luggage, train, hotel room, reservation, passport, "
        "visa, itinerary, rental car, airport transfer, cruise, travel insurance, check-in, layover"
    ),
    "telephone": (
        "phone, SIM card, contract, data plan, signal, voicemail, roaming, number, broadband, router, text message"
    ),
    "software": (
        "app, password, login, username, subscription, licence, update, download, backup, notification, file, "
        "email address, profile, two-factor code, website, printer, laptop, screen, battery, wifi"
    ),
    "health": (
        "appointment, prescription, doctor, vaccine, test result, referral, medication, surgery, symptom, "
        "dentist, medical record, health insurance, allergy, dose"
    ),
    "insurance": (
        "claim, policy, premium, excess, cover, accident, damage, no-claims bonus, car insurance, home insurance"
    ),
    "household": (
        "electricity bill, gas meter, water supply, tenancy, rent, landlord, heating, leak, boiler, washing "
        "machine, rubbish collection, deposit, lease, furniture"
    ),
    "government": (
        "tax return, driving licence, council tax, benefit, pension, birth certificate, permit, fine, vote, "
        "petition, residence permit, identity card"
    ),
    "work": (
        "salary, payslip, holiday, sick leave, shift, job application, interview, contract, expenses, "
        "manager, meeting, training, overtime, schedule"
    ),
    "education": (
        "course, exam, grade, tuition fee, student loan, scholarship, assignment, certificate, library book, timetable"
    ),
    "food": ("meal, restaurant, table, takeaway, recipe, menu, ingredient, tip, delivery driver, calories, dessert"),
    "media": (
        "song, playlist, film, series, podcast, channel, subtitles, alarm, calendar, reminder, news, weather, light"
    ),
    "transport": (
        "bus, parking space, parking fine, car, tyre, petrol, taxi, bicycle, traffic, toll, train ticket, route"
    ),
}
ACTIONS = (
    "cancel, change, check, track, find, activate, verify, get, replace, renew, pay for, report, close, link, "
    "use, order, block, unblock, return, move, set up, add, remove, update, confirm, stop, speed up, share, "
    "receive, choose, dispute"
)
PROBLEMS = {  # as told: as named
    "has not arrived yet": "not arrived",
    "was declined": "declined",
    "is still pending": "pending",
    "does not work": "not working",
    "stopped working": "broken",
    "is missing": "missing",
    "was charged twice": "charged twice",
    "is wrong": "wrong",
    "was stolen": "lost or stolen",
    "got lost": "lost",
    "costs more than I expected": "unexpected cost",
    "is about to run out": "about to expire",
    "has expired": "expired",
    "was cancelled": "cancelled",
    "has failed": "failed",
    "is late": "late",
    "was not recognised": "not recognised",
    "is blocked": "blocked",
    "is compromised": "compromised",
    "was refused": "refused",
    "shows up twice": "duplicate",
    "disappeared": "disappeared",
    "is damaged": "damaged",
    "was sent to the wrong place": "wrong address",
}
ASPECTS = {  # as asked: as named
    "how much does the {} cost": "{} fee",
    "am I charged for a {}": "{} charge",
    "how long does a {} take": "{} time",
    "when will the {} come": "{} arrival",
    "when can I expect my {}": "{} estimate",
    "what is the status of my {}": "{} status",
    "is there a limit on the {}": "{} limits",
    "where can I use the {}": "{} acceptance",
    "which kinds of {} do you support": "supported {}",
    "do you offer a {} in my country": "{} availability",
    "who can have a {}": "{} eligibility",
    "why do I need a {}": "why {} is needed",
    "how does the {} work": "{} explained",
    "what do I need to get a {}": "{} requirements",
    "how do I get my money back for the {}": "{} refund",
    "can I have a second {}": "extra {}",
    "there is a {} that I did not make": "unknown {}",
    "I forgot about the {}, is it too late": "{} deadline",
    "can somebody else use my {}": "{} for others",
    "what was my last {}": "{} history",
}
ASKED = (
    "how do I {}",
    "how can I {}?",
    "can I {}",
    "I want to {}",
    "I would like to {}",
    "is it possible to {}?",
    "please help me {}",
    "where do I go to {}?",
    "{} please",
    "what happens if I {}?",
    "I tried to {} but nothing happened",
    "I can't {}",
)
TOLD = (
    "my {}",
    "the {}",
    "why is it that my {}?",
    "I think my {}",
    "my {}, what should I do?",
    "it seems that the {}",
    "my {} and I need help",
    "what do I do when my {}?",
    "can you tell me why the {}?",
)
OPENED = ("", "", "", "", "hi, ", "hello, ", "so ", "excuse me, ", "sorry but ")


def names() -> Iterator[str]:
    """Every action, problem and aspect of every thing, as a label might name it."""
    things = dict.fromkeys(thing for listed in THINGS.values() for thing in listed.split(", "))
    for thing in things:
        yield from (f"{action} {thing}" for action in ACTIONS.split(", "))
        yield from (f"{thing} {problem}" for problem in PROBLEMS.values())
        yield from (aspect.format(thing) for aspect in ASPECTS.values())


def sentence(rng: random.Random) -> str:
    """One request as people write it."""
    thing = rng.choice(THINGS[rng.choice(list(THINGS))].split(", "))
    kind = rng.choice(("action", "problem", "aspect"))
    if kind == "action":
        thing = f"{rng.choice(('my', 'a', 'the', 'this'))} {thing}"
        said = rng.choice(ASKED).format(f"{rng.choice(ACTIONS.split(', '))} {thing}")
    elif kind == "problem":
        said = rng.choice(TOLD).format(f"{thing} {rng.choice(list(PROBLEMS))}")
    else:
        said = rng.choice(list(ASPECTS)).format(thing) + rng.choice(("?", ""))
    said = rng.choice(OPENED) + said
    return said[0].upper() + said[1:] if rng.random() < 0.6 else said


def compose(count: int, seed: int = 0) -> list[str]:
    """All names, and as many distinct sentences as make `count` requests, in random order."""
    rng = random.Random(f"{seed}/requests")
    found = dict.fromkeys(names())
    while len(found) < count:
        found[sentence(rng)] = None
    requests = list(found)
    rng.shuffle(requests)
    return requests[:count]


def labels_kept_back(data: Path) -> set[frozenset[str]]:
    """The labels of the sets whose texts are left out, each as its words."""
    paths = [path for name in EXCLUDED for path in sorted(data.glob(f"*/{name}/*.jsonl.xz"))]
    return {in_words(str(row["label"])) for path in paths for row in rows(path) if "label" in row}


def in_words(name: str) -> frozenset[str]:
    """The words of a label, in any order, plurals as well."""
    return frozenset(word.rstrip("s") for word in spoken(name).lower().split())


def main(
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz: what is kept for tests stays out")],
    run: Annotated[Path, typer.Argument(help="folder of the run: gets requests.json and requests.f16")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="how many requests")] = COUNT,
    device: str = "cpu",
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
) -> None:
    """Compose requests and read them with the teacher; the same command resumes."""
    keep_pages()
    run.mkdir(parents=True, exist_ok=True)
    path, vectors = run / "requests.json", run / "requests.f16"
    if not path.exists():
        kept_back, labels = held_out(data), labels_kept_back(data)
        if not kept_back:
            raise NautileError(f"{data}: no dev or test splits there, so nothing could be kept out of training")
        vectors.unlink(missing_ok=True)
        fresh = (text for text in compose(count) if key(text) not in kept_back and in_words(text) not in labels)
        save_json(path, list(fresh))
    Vectors(vectors).fill(json.loads(path.read_text()), Teacher(encoder).to(device))


if __name__ == "__main__":
    typer.run(main)
