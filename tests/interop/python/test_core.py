"""Core messaging with nats-py."""

import asyncio
import unittest

import nats.errors
from server import WithServer


class Core(WithServer):
    async def test_a_message_reaches_its_subscriber_with_its_headers(self):
        subscription = await self.client.subscribe("greet.*")
        await self.client.publish("greet.joe", b"hello", headers={"Kind": "wave"})
        message = await subscription.next_msg(timeout=5)
        self.assertEqual(("greet.joe", b"hello", {"Kind": "wave"}),
                         (message.subject, message.data, message.headers))

    async def test_one_member_of_a_queue_group_gets_each_message(self):
        other = await self.connect()
        subscriptions = [await client.subscribe("work", queue="workers") for client in (self.client, other)]
        await asyncio.gather(self.client.flush(), other.flush())
        for number in range(50):
            await self.client.publish("work", b"%d" % number)
        await asyncio.gather(self.client.flush(), other.flush())
        received = []
        for subscription in subscriptions:
            while subscription.pending_msgs:
                received.append(int((await subscription.next_msg(timeout=1)).data))
        self.assertEqual(list(range(50)), sorted(received))

    async def test_a_request_gets_its_answer(self):
        async def answer(message):
            await message.respond(message.data[::-1])

        await self.client.subscribe("reverse", cb=answer)
        reply = await self.client.request("reverse", b"abc", timeout=5)
        self.assertEqual(b"cba", reply.data)

    async def test_a_request_that_nobody_answers_fails_at_once(self):
        with self.assertRaises(nats.errors.NoRespondersError):
            await self.client.request("nobody", b"", timeout=5)

    async def test_a_payload_over_the_maximum_is_refused_by_the_client_from_what_info_says(self):
        self.assertEqual(1024 * 1024, self.client.max_payload)
        with self.assertRaises(nats.errors.MaxPayloadError):
            await self.client.publish("big", b"x" * (1024 * 1024 + 1))

    async def test_an_unsubscribe_after_n_messages_ends_delivery(self):
        subscription = await self.client.subscribe("few")
        await subscription.unsubscribe(limit=2)
        for number in range(5):
            await self.client.publish("few", b"%d" % number)
        await self.client.flush()
        received = [(await subscription.next_msg(timeout=5)).data for _ in range(2)]
        self.assertEqual([b"0", b"1"], received)
        self.assertEqual(0, subscription.pending_msgs)

    async def test_draining_delivers_what_was_on_its_way(self):
        received = []

        async def take(message):
            received.append(message.data)

        receiver = await self.connect()
        await receiver.subscribe("last", cb=take)
        await receiver.flush()
        for number in range(100):
            await self.client.publish("last", b"%d" % number)
        await self.client.flush()
        await receiver.drain()
        self.assertEqual(100, len(received))


class Authorization(WithServer):
    arguments = ("--user", "joe", "--pass", "secret")

    async def connect(self, **options):
        return await super().connect(**{"user": "joe", "password": "secret", **options})

    async def test_the_right_password_is_let_in_and_a_wrong_one_is_not(self):
        await self.client.flush()
        with self.assertRaises(nats.errors.Error):
            await self.connect(password="wrong", allow_reconnect=False, max_reconnect_attempts=0)


if __name__ == "__main__":
    unittest.main()
