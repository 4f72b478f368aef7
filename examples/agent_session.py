"""An agent's session: the chat in an entity, tools as activities, a person who approves, progress to watch.

The session is an entity: it has the conversation, one message at a time, and costs nothing while nobody
talks. Each answer is an orchestration: it thinks and calls tools until it has one, and survives every
crash on the way. What it does shows in the session at once, so a user interface only has to watch that.
The model here is a few lines that need no network; put a real one into ``think``.
"""

import asyncio
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

import lungfish
from lungfish.orchestrations.context import EntityRef

app = lungfish.App("agent")


class Message(BaseModel):
    """One entry of the conversation."""

    role: Literal["user", "tool", "agent"]
    text: str


class Step(BaseModel):
    """What the model wants: a tool, or to say something."""

    say: str | None = None
    tool: str | None = None
    argument: str = ""


@app.entity
class Session(lungfish.Entity, ttl=timedelta(days=90), state_bytes_max=1_000_000):
    """A conversation. Whoever watches it sees each step as it is committed."""

    history: list[Message] = []
    doing: str = ""
    waits_for: str | None = None

    def ask(self, text: str) -> str:
        """Take the user's message and have it answered; return the instance that does."""
        self.history.append(Message(role="user", text=text))
        self.doing = "thinking"
        return self.context.start(answer, self.key, list(self.history))

    def progress(self, doing: str, waits_for: str | None = None) -> None:
        """Show what is being done, and who is waited for."""
        self.doing, self.waits_for = doing, waits_for

    def note(self, message: Message) -> None:
        """Add to the conversation."""
        self.history.append(message)
        self.doing, self.waits_for = ("", None) if message.role == "agent" else ("thinking", None)


@app.activity(retry=lungfish.RetryPolicy(max_attempts=3))
def think(history: list[Message]) -> Step:
    """Decide on the next step: the place for a call to a language model."""
    last = history[-1]
    if last.role == "tool":
        return Step(say=f"Done: {last.text}")
    word, _, rest = last.text.partition(" ")
    tool = {"find": "search", "pay": "transfer"}.get(word)
    return Step(tool=tool, argument=rest) if tool is not None else Step(say=f"You said: {last.text}")


@app.activity
def search(what: str) -> str:
    """Look something up."""
    return f"3 results for {what}"


@app.activity
def transfer(what: str) -> str:
    """Move money: nobody wants that done twice, or without being asked."""
    return f"{what}: paid under {lungfish.activity_info().idempotency_key}"


TOOLS = {"search": search, "transfer": transfer}
NEEDS_APPROVAL = {"transfer"}


@app.orchestration
async def answer(ctx: lungfish.OrchestrationContext, session_key: str, history: list[Message]) -> str:
    """Think and call tools until there is something to say."""
    session = ctx.entity(Session, session_key)
    while True:
        step = await ctx.call_activity(think, history)
        if step.tool is None:
            message = Message(role="agent", text=step.say or "")
            session.signal(Session.note, message)
            return message.text
        if step.tool in NEEDS_APPROVAL and not await approved(ctx, session, step):
            message = Message(role="tool", text=f"{step.tool} was not approved")
        else:
            session.signal(Session.progress, f"{step.tool} {step.argument}")
            found = await ctx.call_activity(TOOLS[step.tool], step.argument)
            message = Message(role="tool", text=found)
        session.signal(Session.note, message)
        history = [*history, message]


async def approved(ctx: lungfish.OrchestrationContext, session: EntityRef, step: Step) -> bool:
    """Ask the user, for up to a day."""
    session.signal(Session.progress, f"may I {step.tool} {step.argument}?", ctx.instance_id)
    try:
        async with asyncio.timeout(86_400):
            return await ctx.wait_for_external_event("approved", bool)
    except TimeoutError:
        return False


async def main(client: lungfish.Client) -> list[str]:
    """Play the user: ask twice, approve what must be approved, and return what was seen on the way."""
    session = client.entity(Session, "ada")
    seen: list[str] = []
    await session.call(Session.ask, "find a cheap flight")
    async with session.watch() as watch:
        async for state in watch:
            if state is None:
                continue
            if state.waits_for is not None and state.doing not in seen:
                await client.orchestration(state.waits_for).raise_event("approved", True)
            if state.doing and state.doing not in seen[-1:]:
                seen.append(state.doing)
            if not state.doing:
                seen.append(state.history[-1].text)
                if len([message for message in state.history if message.role == "agent"]) == 2:
                    return seen
                await session.call(Session.ask, "pay 20 euros to Bob")
    return seen


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
