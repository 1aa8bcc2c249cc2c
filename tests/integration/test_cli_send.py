"""`choreo send` publishes what is right and refuses the rest; `choreo declare` prepares for it."""

from __future__ import annotations

import json
from pathlib import Path

import aio_pika
import pytest
from cli_project import Project

from choreo import rabbitmq
from choreo.envelope import read


@pytest.fixture
def project(tmp_path: Path, amqp_url: str) -> Project:
    return Project(tmp_path, CHOREO_AMQP_URL=amqp_url)


async def test_publishes_the_start_of_a_flow(project: Project, amqp_url: str) -> None:
    assert project.choreo("declare").returncode == 0
    done = project.choreo("send", "shop.ask_price", '{"id": "a", "items": [{"sku": "x"}]}')
    assert done.returncode == 0, done.stderr
    flow = done.stdout.strip()
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue("shop", ensure=False)
        message = await queue.get()
        await message.ack()
    assert json.loads(message.body) == {"id": "a", "items": [{"sku": "x", "count": 1}]}
    assert message.message_id == message.correlation_id == flow
    assert message.app_id == "choreo"
    assert message.headers["cloudEvents:source"] == "/choreo/send"
    assert message.headers["cloudEvents:subject"] == "a"
    assert "cloudEvents:causationid" not in message.headers


async def test_an_event_needs_no_listener_and_takes_its_newest_version(
    project: Project, amqp_url: str
) -> None:
    assert project.choreo("declare").returncode == 0
    async with rabbitmq.journal(amqp_url) as events:
        project.write("opened.json", '{"hour": 9}')
        newest = project.choreo("send", "shop.opened", "--file", "opened.json", "--json")
        assert newest.returncode == 0, newest.stderr
        older = project.choreo("send", "shop.opened.v1", stdin="{}")
        assert older.returncode == 0, older.stderr
        first, second = [read(await anext(events), 0) for _ in range(2)]
    said = json.loads(newest.stdout)
    assert said == {"flow": first.id, "type": "shop.opened.v2", "time": first.time}
    assert (second.type, second.id) == ("shop.opened.v1", older.stdout.strip())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shop.ask_price", "{}"), "not a shop.ask_price.v1: id: Field required"),
        (("shop.ask_price", '{"id": 7}'), "id: Input should be a valid string"),
        (("shop.ask_price", '{"id": "a", "idd": 1}'), "idd: Extra inputs are not permitted"),
        (
            ("shop.ask_price", '{"id": "a", "items": [{"sku": "x", "cout": 2}]}'),
            "items.0.cout: Extra inputs are not permitted",
        ),
        (("shop.ask_price", "{"), "Invalid JSON"),
        (("shop.ask_price", ""), "Invalid JSON"),
        (("shop.ask_price", '"text"'), "should be an object"),
        (("shop.ask_price", json.dumps({"id": "a" * 2_000})), "bytes are over the limit, 1000"),
        (("shop.ask_prise", "{}"), "did you mean shop.ask_price"),
        (("AskPrice", "{}"), "did you mean shop.ask_price?"),
        (("shop.opened.v3", "{}"), "did you mean shop.opened"),
        (("shop.opened.v²", "{}"), "did you mean shop.opened"),
        (("shop.opened.v٢", "{}"), "did you mean shop.opened"),
        (("wholly-other", "{}"), "'choreo map' lists the topics"),
    ],
)
def test_refuses_before_anything_is_published(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    project = Project(tmp_path, CHOREO_AMQP_URL="amqp://127.0.0.1:1/", CHOREO_MAX_BODY_BYTES="1000")
    done = project.choreo("send", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_says_which_service_is_missing(project: Project) -> None:
    word = '{"id": "a"}'
    unheard = "choreo: no queue hears shop.ask_price: start its service: choreo run parts.shop\n"
    before = project.choreo("send", "shop.ask_price", word)  # not even an exchange is there
    assert (before.returncode, before.stderr) == (1, unheard)
    event = project.choreo("send", "shop.opened.v1", "{}")
    assert event.returncode == 1
    assert "run 'choreo declare'" in event.stderr
    handled_by_none = project.choreo("send", "void.shout", "{}")
    assert handled_by_none.returncode == 1
    assert "no service of 'parts' handles it" in handled_by_none.stderr


async def test_a_declared_queue_that_is_gone_again(project: Project, amqp_url: str) -> None:
    assert project.choreo("declare").returncode == 0
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).queue_delete("shop")
    done = project.choreo("send", "shop.ask_price", '{"id": "a"}')
    assert done.returncode == 1
    assert "start its service: choreo run parts.shop" in done.stderr


def test_declare_says_what_there_is_and_may_be_repeated(project: Project) -> None:
    first = project.choreo("declare")
    assert first.returncode == 0, first.stderr
    rows = [line.split() for line in first.stdout.splitlines()]
    assert ["│", "journal", "│", "stream", "│", "every", "event", "│"] in rows
    assert ["│", "desk", "│", "quorum", "│", "shop.price_told.v1", "│"] in rows
    assert ["│", "shop", "│", "quorum", "│", "shop.ask_price.v1", "│"] in rows
    assert project.choreo("declare").stdout == first.stdout


async def test_declare_says_what_to_do_with_a_queue_of_another_form(
    project: Project, amqp_url: str
) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).declare_queue("shop", durable=True)
    done = project.choreo("declare")
    assert done.returncode == 2
    assert "queue 'shop'" in done.stderr
    assert "it is there in another form: delete it" in done.stderr
    assert done.stderr.count("\n") == 1
