"""Device twin: what a device said last, and whether it is still there. One entity for each device.

Two reminders do the watching: ``silence`` is pushed away by every message, and so comes only if none does;
``check`` comes again and again and asks the device to say something. Both are part of the twin's state: they
last when the twin is passivated, when its host dies, and they go when the twin is deleted.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import lungfish

app = lungfish.App("device-twin")

SILENCE = timedelta(minutes=15)
CHECK = timedelta(hours=1)


@app.entity
class Device(lungfish.Entity):
    """What is known of a device."""

    reading: float | None = None
    heard_at: datetime | None = None
    online: bool = False
    checks: int = 0

    def report(self, reading: float) -> None:
        """The device says something."""
        self.reading, self.heard_at = reading, self.context.now()
        if not self.online:
            self.online = True
            self.context.topic("devices").publish({"device": self.key, "online": True})
        self.context.set_reminder("silence", SILENCE, operation=Device.lost)
        if "check" not in self.context.reminders():
            # After a day without hosts one check is enough: that is the default, catch_up="once".
            self.context.set_reminder("check", CHECK, CHECK, operation=Device.check)

    def lost(self) -> None:
        """Nothing was heard for too long."""
        self.online = False
        self.context.topic("devices").publish({"device": self.key, "online": False})

    def check(self) -> None:
        """Ask the device for a sign of life; whoever talks to devices follows this topic."""
        self.checks += 1
        self.context.topic("commands").publish({"device": self.key, "command": "ping"})

    def retire(self) -> None:
        """Forget the device, and its reminders with it."""
        self.context.topic("devices").publish({"device": self.key, "online": False})
        self.context.delete()


@app.entity
class Dashboard(lungfish.Entity):
    """Which devices are there, for a page that shows them."""

    online: dict[str, bool] = {}

    def follow(self) -> None:
        """Subscribe to what devices say of themselves."""
        self.context.topic("devices").subscribe(Dashboard.note)

    def note(self, news: dict[str, bool | str]) -> None:
        """A device came or went."""
        self.online[str(news["device"])] = bool(news["online"])


async def main(client: lungfish.Client) -> dict[str, bool]:
    """Hear of two devices, and look at the dashboard."""
    dashboard = client.entity(Dashboard, "main")
    await client.topic("devices").subscribe(dashboard, Dashboard.note)
    await client.entity(Device, "thermometer").signal(Device.report, 21.5)
    await client.entity(Device, "scales").signal(Device.report, 80.0)
    async with asyncio.timeout(30):
        while (state := await dashboard.state()) is None or len(state.online) < 2:
            await asyncio.sleep(0.05)
    return state.online


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(datetime.now(UTC), await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
