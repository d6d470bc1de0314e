"""Requests that people make of services, composed of parts: corpora hold few, and label lists are often about them.

python -m nautile.tasks.backbone.requests DATA RUN

Nobody labels them; the teacher's vectors say what they mean. Half are worded as people write them, half as short names
of what is asked, which may stand as labels.
"""

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from nautile.engine.memory import keep_pages
from nautile.tasks.backbone.teacher import Teacher
from nautile.tasks.backbone.texts import held_out, key, save_json
from nautile.tasks.backbone.vectors import Vectors

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


def request(rng: random.Random) -> str:
    """One request, or a name of one."""
    thing = rng.choice(THINGS[rng.choice(list(THINGS))].split(", "))
    named = rng.random() < 0.5
    kind = rng.choice(("action", "problem", "aspect"))
    if kind == "action":
        action = rng.choice(ACTIONS.split(", "))
        if named:
            return f"{action} {thing}"
        said = rng.choice(ASKED).format(f"{action} {rng.choice(('my', 'a', 'the', 'this'))} {thing}")
    elif kind == "problem":
        told, name = rng.choice(list(PROBLEMS.items()))
        if named:
            return f"{thing} {name}"
        said = rng.choice(TOLD).format(f"{thing} {told}")
    else:
        asked, name = rng.choice(list(ASPECTS.items()))
        if named:
            return name.format(thing)
        said = asked.format(thing) + rng.choice(("?", ""))
    said = rng.choice(OPENED) + said
    return said[0].upper() + said[1:] if rng.random() < 0.6 else said


def compose(count: int, seed: int = 0) -> list[str]:
    """Distinct requests, in random order."""
    rng = random.Random(f"{seed}/requests")
    found: dict[str, None] = {}
    while len(found) < count:
        found[request(rng)] = None
    return list(found)


def main(
    data: Annotated[
        Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz: texts of its dev and test splits stay out")
    ],
    run: Annotated[Path, typer.Argument(help="folder of the run: gets requests.json and requests.f16")],
    count: int = COUNT,
    device: str = "cpu",
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
) -> None:
    """Compose requests and read them with the teacher."""
    keep_pages()
    path = run / "requests.json"
    if not path.exists():
        kept_back = held_out(data)
        save_json(path, [text for text in compose(count) if key(text) not in kept_back])
    Vectors(run / "requests.f16").fill(json.loads(path.read_text()), Teacher(encoder).to(device))


if __name__ == "__main__":
    typer.run(main)
