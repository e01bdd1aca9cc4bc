"""Streams, consumers, key-value buckets and object stores with nats-py."""

import asyncio
import base64
import hashlib
import io
import os
import time
import unittest

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, RetentionPolicy, StorageType
from server import WithServer


class Source(io.RawIOBase):
    """So many bytes, made as they are read: every piece of 251 bytes is another one."""

    def __init__(self, length):
        self.left, self.pieces, self.digest = length, 0, hashlib.sha256()

    def readinto(self, into):
        count = min(len(into), self.left)
        wanted = -(-count // 251)
        made = b"".join((self.pieces + at).to_bytes(8, "little") + PIECE for at in range(wanted))[:count]
        self.pieces += wanted
        self.left -= count
        into[:count] = made
        self.digest.update(made)
        return count


PIECE = bytes(range(243))


class Sink(io.RawIOBase):
    """Forgets what it is given, but for its digest."""

    def __init__(self):
        self.length, self.digest = 0, hashlib.sha256()

    def write(self, data):
        self.length += len(data)
        self.digest.update(data)
        return len(data)


class Streams(WithServer):
    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.js = self.client.jetstream()

    async def test_a_stream_is_created_listed_changed_and_deleted(self):
        created = await self.js.add_stream(name="ORDERS", subjects=["orders.>"])
        self.assertEqual("ORDERS", created.config.name)
        self.assertEqual(0, created.state.messages)
        changed = await self.js.update_stream(created.config.evolve(max_msgs=10))
        self.assertEqual(10, changed.config.max_msgs)
        self.assertEqual(["ORDERS"], [info.config.name for info in await self.js.streams_info()])
        self.assertEqual("ORDERS", await self.js.find_stream_name_by_subject("orders.new"))
        self.assertTrue(await self.js.delete_stream("ORDERS"))
        with self.assertRaises(nats.js.errors.NotFoundError):
            await self.js.stream_info("ORDERS")

    async def test_publishing_is_acknowledged_with_the_sequence(self):
        await self.js.add_stream(name="S", subjects=["s.*"])
        sequences = [(await self.js.publish("s.a", b"%d" % number)).seq for number in range(10)]
        self.assertEqual(list(range(1, 11)), sequences)

    async def test_a_message_id_is_stored_once(self):
        await self.js.add_stream(name="S", subjects=["s.*"])
        first = await self.js.publish("s.a", b"x", headers={"Nats-Msg-Id": "1"})
        again = await self.js.publish("s.a", b"x", headers={"Nats-Msg-Id": "1"})
        self.assertEqual((1, None), (first.seq, first.duplicate))
        self.assertEqual((1, True), (again.seq, again.duplicate))

    async def test_an_expectation_that_does_not_hold_refuses_the_message(self):
        await self.js.add_stream(name="S", subjects=["s.*"])
        await self.js.publish("s.a", b"x")
        with self.assertRaises(nats.js.errors.BadRequestError) as refused:
            await self.js.publish("s.a", b"y", headers={"Nats-Expected-Last-Sequence": "7"})
        self.assertEqual(10071, refused.exception.err_code)

    async def test_messages_are_read_and_deleted_by_sequence(self):
        await self.js.add_stream(name="S", subjects=["s.*"])
        for number in range(3):
            await self.js.publish(f"s.{number}", b"%d" % number)
        self.assertEqual(b"1", (await self.js.get_msg("S", 2)).data)
        self.assertEqual(b"2", (await self.js.get_last_msg("S", "s.2")).data)
        self.assertTrue(await self.js.delete_msg("S", 2))
        with self.assertRaises(nats.js.errors.NotFoundError):
            await self.js.get_msg("S", 2)
        self.assertEqual(2, (await self.js.stream_info("S")).state.messages)

    async def test_a_purge_takes_what_its_filter_matches(self):
        await self.js.add_stream(name="S", subjects=["s.*"])
        for number in range(6):
            await self.js.publish(f"s.{number % 2}", b"")
        await self.js.purge_stream("S", subject="s.0")
        self.assertEqual(3, (await self.js.stream_info("S")).state.messages)
        await self.js.purge_stream("S")
        self.assertEqual(0, (await self.js.stream_info("S")).state.messages)

    async def test_limits_discard_the_oldest_or_refuse_the_newest(self):
        await self.js.add_stream(name="OLD", subjects=["old"], max_msgs=3)
        for number in range(5):
            await self.js.publish("old", b"%d" % number)
        self.assertEqual(3, (await self.js.stream_info("OLD")).state.first_seq)
        await self.js.add_stream(name="NEW", subjects=["new"], max_msgs=1, discard=DiscardPolicy.NEW)
        await self.js.publish("new", b"")
        with self.assertRaises(nats.js.errors.APIError) as refused:
            await self.js.publish("new", b"")
        self.assertEqual(10077, refused.exception.err_code)

    async def test_a_work_queue_forgets_what_is_acknowledged(self):
        await self.js.add_stream(name="W", subjects=["w"], retention=RetentionPolicy.WORK_QUEUE)
        for number in range(3):
            await self.js.publish("w", b"%d" % number)
        puller = await self.js.pull_subscribe("w", durable="worker")
        for message in await puller.fetch(3, timeout=5):
            await message.ack_sync()
        self.assertEqual(0, (await self.js.stream_info("W")).state.messages)

    async def test_memory_streams_work_as_files_do(self):
        await self.js.add_stream(name="M", subjects=["m"], storage=StorageType.MEMORY)
        await self.js.publish("m", b"x")
        self.assertEqual(b"x", (await self.js.get_msg("M", 1)).data)


class Consumers(WithServer):
    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.js = self.client.jetstream()
        await self.js.add_stream(name="S", subjects=["s.>"])
        for number in range(10):
            await self.js.publish(f"s.{number % 2}", b"%d" % number)

    async def test_a_pull_consumer_fetches_acknowledges_and_goes_on(self):
        puller = await self.js.pull_subscribe("s.>", durable="puller")
        first = await puller.fetch(4, timeout=5)
        for message in first:
            await message.ack_sync()
        second = await puller.fetch(6, timeout=5)
        self.assertEqual([b"%d" % number for number in range(10)], [m.data for m in first + second])
        info = await puller.consumer_info()
        self.assertEqual((4, 6, 0), (info.ack_floor.stream_seq, info.num_ack_pending, info.num_pending))

    async def test_a_fetch_from_a_drained_consumer_times_out(self):
        puller = await self.js.pull_subscribe("s.nothing", durable="idle")
        with self.assertRaises(nats.errors.TimeoutError):
            await puller.fetch(1, timeout=0.5)

    async def test_a_filter_shows_only_its_messages(self):
        puller = await self.js.pull_subscribe("s.1", durable="odd")
        messages = await puller.fetch(5, timeout=5)
        self.assertEqual([b"1", b"3", b"5", b"7", b"9"], [message.data for message in messages])

    async def test_a_negative_ack_brings_the_message_again(self):
        puller = await self.js.pull_subscribe("s.>", durable="again")
        (message,) = await puller.fetch(1, timeout=5)
        self.assertEqual(1, message.metadata.num_delivered)
        await message.nak()
        received = {}
        while received.get(1) != 2:
            for message in await puller.fetch(1, timeout=5):
                received[message.metadata.sequence.stream] = message.metadata.num_delivered

    async def test_an_unacknowledged_message_comes_again_after_the_ack_wait(self):
        config = ConsumerConfig(durable_name="late", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.2)
        puller = await self.js.pull_subscribe("s.>", durable="late", config=config)
        await puller.fetch(1, timeout=5)
        again = await puller.fetch(10, timeout=5)
        redelivered = [message for message in again if message.metadata.num_delivered > 1]
        while not redelivered:
            again = await puller.fetch(1, timeout=5)
            redelivered = [message for message in again if message.metadata.num_delivered > 1]
        self.assertEqual(1, redelivered[0].metadata.sequence.stream)

    async def test_a_terminated_message_is_settled(self):
        puller = await self.js.pull_subscribe("s.>", durable="term")
        (message,) = await puller.fetch(1, timeout=5)
        await message.term()
        await self.client.flush()
        for _ in range(200):
            info = await puller.consumer_info()
            if info.num_ack_pending == 0:
                break
            await asyncio.sleep(0.02)
        self.assertEqual(0, info.num_ack_pending)

    async def test_a_push_consumer_delivers_all_in_order(self):
        subscription = await self.js.subscribe("s.>", durable="push")
        received = []
        for _ in range(10):
            message = await subscription.next_msg(timeout=5)
            received.append(message.data)
            await message.ack()
        self.assertEqual([b"%d" % number for number in range(10)], received)

    async def test_a_push_consumer_shares_among_its_deliver_group(self):
        first = await self.js.subscribe("s.>", queue="group", durable="group")
        second = await self.js.subscribe("s.>", queue="group", durable="group")
        received = set()
        for _ in range(200):
            for subscription in (first, second):
                while subscription.pending_msgs:
                    received.add((await subscription.next_msg(timeout=1)).data)
            if len(received) == 10:
                break
            await asyncio.sleep(0.02)
        self.assertEqual(10, len(received))

    async def test_an_ordered_consumer_reads_the_stream_in_order(self):
        subscription = await self.js.subscribe("s.>", ordered_consumer=True)
        received = [(await subscription.next_msg(timeout=5)).data for _ in range(10)]
        self.assertEqual([b"%d" % number for number in range(10)], received)

    async def test_deliver_policies_choose_the_start(self):
        last = await self.js.subscribe("s.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.LAST))
        self.assertEqual(b"9", (await last.next_msg(timeout=5)).data)
        sixth = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=6)
        from_sixth = await self.js.subscribe("s.>", config=sixth)
        self.assertEqual(b"5", (await from_sixth.next_msg(timeout=5)).data)
        new = await self.js.subscribe("s.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW))
        await self.js.publish("s.new", b"fresh")
        self.assertEqual(b"fresh", (await new.next_msg(timeout=5)).data)

    async def test_consumers_are_listed_and_deleted(self):
        await self.js.add_consumer("S", ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT))
        self.assertEqual(["c"], [info.name for info in await self.js.consumers_info("S")])
        self.assertTrue(await self.js.delete_consumer("S", "c"))
        with self.assertRaises(nats.js.errors.NotFoundError):
            await self.js.consumer_info("S", "c")


class Buckets(WithServer):
    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.js = self.client.jetstream()

    async def test_a_key_value_bucket_puts_gets_updates_and_deletes(self):
        bucket = await self.js.create_key_value(bucket="config", history=5)
        first = await bucket.put("color", b"red")
        await bucket.update("color", b"blue", last=first)
        self.assertEqual(b"blue", (await bucket.get("color")).value)
        with self.assertRaises(nats.js.errors.KeyWrongLastSequenceError):
            await bucket.update("color", b"green", last=first)
        with self.assertRaises(nats.js.errors.KeyWrongLastSequenceError):
            await bucket.create("color", b"green")
        self.assertEqual([b"red", b"blue"], [entry.value for entry in await bucket.history("color")])
        await bucket.put("shape", b"round")
        self.assertEqual(["color", "shape"], sorted(await bucket.keys()))
        await bucket.delete("color")
        with self.assertRaises(nats.js.errors.KeyNotFoundError):
            await bucket.get("color")
        await bucket.purge("shape")
        self.assertEqual(1, len(await bucket.history("shape")))

    async def test_a_watch_sees_what_is_there_and_what_comes(self):
        bucket = await self.js.create_key_value(bucket="watched")
        await bucket.put("a", b"1")
        watch = await bucket.watchall()
        self.assertEqual(b"1", (await watch.updates(timeout=5)).value)
        self.assertIsNone(await watch.updates(timeout=5))
        await bucket.put("b", b"2")
        self.assertEqual(("b", b"2"), (lambda entry: (entry.key, entry.value))(await watch.updates(timeout=5)))
        await watch.stop()

    async def test_many_keys_are_put_and_all_are_listed(self):
        """`NATS_TEST_KEYS` says how many, a million for instance."""
        count = int(os.environ.get("NATS_TEST_KEYS", 2000))
        # It would look at each of the tasks.
        asyncio.get_running_loop().set_debug(False)
        bucket = await self.js.create_key_value(bucket="many")
        began = time.monotonic()
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            await asyncio.gather(*(bucket.put(f"key.{number}", b"value") for number in numbers))
        put, began = time.monotonic() - began, time.monotonic()
        keys = await bucket.keys()
        print(f"{count} keys put in {put:.1f} s, listed in {time.monotonic() - began:.1f} s")
        self.assertEqual(count, len(keys))
        self.assertEqual({f"key.{number}" for number in range(count)}, set(keys))

    async def test_a_large_object_comes_back_as_it_was_put(self):
        """A stream of bytes goes in and comes out; nothing holds all of it. `NATS_TEST_OBJECT_BYTES` says how large it is, a gibibyte for instance."""
        length = int(os.environ.get("NATS_TEST_OBJECT_BYTES", 64 << 20))
        store = await self.js.create_object_store(bucket="large")
        source, sink = Source(length), Sink()
        began = time.monotonic()
        put = await store.put("large", source)
        took, began = time.monotonic() - began, time.monotonic()
        found = await store.get("large", writeinto=sink)
        print(f"{length} bytes put in {took:.1f} s, got in {time.monotonic() - began:.1f} s")
        self.assertEqual((length, length, length), (put.size, found.info.size, sink.length))
        self.assertEqual(source.digest.digest(), sink.digest.digest())
        said = base64.urlsafe_b64decode(put.digest.removeprefix("SHA-256="))
        self.assertEqual(source.digest.digest(), said)
        self.assertEqual(-(-length // (128 << 10)), put.chunks)

    async def test_an_object_store_gives_back_what_it_was_given(self):
        store = await self.js.create_object_store(bucket="files")
        data = bytes(range(256)) * 4096
        await store.put("blob", data)
        found = await store.get("blob")
        self.assertEqual((data, len(data)), (found.data, found.info.size))
        await store.delete("blob")
        with self.assertRaises(nats.js.errors.NotFoundError):
            await store.get("blob")


class Restarts(WithServer):
    async def publish_and_consume_half(self):
        js = self.client.jetstream()
        await js.add_stream(name="S", subjects=["s.*"])
        for number in range(100):
            await js.publish("s.a", b"%d" % number, headers={"Nats-Msg-Id": str(number)})
        puller = await js.pull_subscribe("s.a", durable="half")
        for message in await puller.fetch(50, timeout=5):
            await message.ack_sync()
        bucket = await js.create_key_value(bucket="kept")
        await bucket.put("key", b"value")
        await self.client.close()

    async def check_all_is_there(self):
        self.client = await self.connect()
        js = self.client.jetstream()
        state = (await js.stream_info("S")).state
        self.assertEqual((100, 1, 100), (state.messages, state.first_seq, state.last_seq))
        again = await js.publish("s.a", b"99", headers={"Nats-Msg-Id": "99"})
        self.assertTrue(again.duplicate)
        puller = await js.pull_subscribe_bind("half", "S")
        rest = await puller.fetch(50, timeout=5)
        self.assertEqual([b"%d" % number for number in range(50, 100)], [message.data for message in rest])
        self.assertEqual(b"value", (await (await js.key_value("kept")).get("key")).value)

    async def test_a_stopped_server_comes_back_with_everything(self):
        await self.publish_and_consume_half()
        self.assertIn(self.server.stop(), (0, 1))
        self.server.start()
        await self.check_all_is_there()

    async def test_a_killed_server_comes_back_with_everything_acknowledged(self):
        await self.publish_and_consume_half()
        self.server.kill()
        self.server.start()
        await self.check_all_is_there()


if __name__ == "__main__":
    unittest.main()
