"""An aggregator: an entity collects readings from many senders, and can be asked at any time.

Every reading counts exactly once, whatever crashes; a sensor that nobody hears of costs nothing.
"""

import asyncio

import lungfish

app = lungfish.App("aggregator")


@app.entity
class Sensor(lungfish.Entity):
    """What the readings of one sensor come to."""

    count: int = 0
    total: float = 0.0
    highest: float | None = None

    def record(self, value: float) -> None:
        """Take in a reading; above 100 the building's alarm hears of it."""
        self.count += 1
        self.total += value
        if self.highest is None or value > self.highest:
            self.highest = value
        if value > 100:
            self.context.signal((Alarm, "building"), Alarm.raise_for, self.key)

    @lungfish.shared
    def mean(self) -> float | None:
        """Return the mean of all readings; several may ask at once."""
        return self.total / self.count if self.count else None

    def reset(self) -> int:
        """Start over; return how many readings there were."""
        count, self.count, self.total, self.highest = self.count, 0, 0.0, None
        return count


@app.entity
class Alarm(lungfish.Entity):
    """Who is in trouble."""

    sensors: set[str] = set()

    def raise_for(self, sensor: str) -> None:
        """Note a sensor."""
        self.sensors.add(sensor)


async def send(client: lungfish.Client, sender: int) -> None:
    """One of many senders: a batch for each of three sensors."""
    for room in ("hall", "kitchen", "roof"):
        sensor = client.entity(Sensor, room)
        await sensor.signal_many(Sensor.record, [(float(sender + number),) for number in range(100)])


async def main(client: lungfish.Client) -> dict[str, float | None]:
    """Send from ten places at once, then ask."""
    await asyncio.gather(*(send(client, sender) for sender in range(10)))
    await client.entity(Sensor, "roof").signal(Sensor.record, 451.0)
    rooms = ("hall", "kitchen", "roof")
    means = await asyncio.gather(*(client.entity(Sensor, room).call(Sensor.mean) for room in rooms))
    return dict(zip(rooms, means, strict=True))


async def connected() -> None:
    async with lungfish.connect(app) as client:
        print(await main(client))


if __name__ == "__main__":
    runtime = lungfish.start(app)
    try:
        asyncio.run(connected())
    finally:
        runtime.shutdown()
