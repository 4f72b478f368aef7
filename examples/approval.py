"""Human interaction: wait for a person for up to three days, then escalate.

While an instance waits it costs nothing: no thread, no process, not even memory if the host needs it.

Two variants: ``approve`` races the answer against a timer; ``request_leave`` waits for as long as it
takes and tells the employee.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import lungfish

app = lungfish.App("approval")


@app.activity
def request_approval(expense: str) -> None:
    """Send the approver a message with the instance id to answer to."""
    print(f"approve {expense!r}? answer to {lungfish.activity_info().instance_id}")


@app.activity
def process_approval(expense: str, approved: bool) -> str:
    """Do what follows from the answer."""
    return f"{expense}: {'approved' if approved else 'rejected'}"


@app.activity
def escalate(expense: str) -> str:
    """Tell the approver's superior."""
    return f"{expense}: escalated"


@app.orchestration
async def approve(
    ctx: lungfish.OrchestrationContext, expense: str, patience: timedelta = timedelta(hours=72)
) -> str:
    """Ask, then race the answer against a timer."""
    await ctx.call_activity(request_approval, expense)
    answer = ctx.wait_for_external_event("ApprovalEvent", bool)
    due = ctx.create_timer(patience)
    ctx.set_custom_status("waiting for an answer")
    if await ctx.when_any(answer, due) is answer:
        due.cancel()
        return await ctx.call_activity(process_approval, expense, await answer)
    ctx.set_custom_status("nobody answered")
    return await ctx.call_activity(escalate, expense)


@dataclass
class Leave:
    """Somebody wants some days off."""

    employee: str
    days: int


@dataclass
class ApprovalResult:
    """What the manager says."""

    approved: bool
    comment: str = ""


@app.activity
def submit(leave: Leave) -> None:
    """Put the request on the manager's desk."""
    print(f"{leave.employee} asks for {leave.days} days")


@app.activity
def notify(leave: Leave, text: str) -> str:
    """Tell the employee."""
    return f"to {leave.employee}: {text}"


@app.orchestration
async def request_leave(ctx: lungfish.OrchestrationContext, leave: Leave) -> str:
    """Submit, wait for the decision, notify."""
    await ctx.call_activity(submit, leave)
    decision = await ctx.wait_for_external_event("ApprovalResult", ApprovalResult)
    if decision.approved:
        return await ctx.call_activity(notify, leave, f"your {leave.days} days are approved")
    return await ctx.call_activity(notify, leave, f"rejected: {decision.comment}")


async def main(client: lungfish.Client) -> list[str]:
    """Play both parts: the one who asks, and the one who answers."""
    expense = await client.start(approve, "a chair")
    leave = await client.start(request_leave, Leave("Ada", 5))
    await expense.raise_event("ApprovalEvent", True)
    await leave.raise_event("ApprovalResult", ApprovalResult(False, "the release is on Friday"))
    return [await expense.result(timeout=60), await leave.result(timeout=60)]


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
