"""The guards that a test takes out by itself, to show what becomes of the promise then."""

from __future__ import annotations

from typing import Final

from tests.faults.wanted import SHARED, Promise

_HANDS: Final = "What is in hand"

GUARDS: Final = (
    Promise(
        area="The disk",
        says="No sync at all (`synchronous=off`): a power cut takes all that was confirmed",
        tests=("test_the_guard_matters_without_sync_a_power_cut_loses",),
        on=("sqlite",),
    ),
    Promise(
        area="The disk",
        says="No sync at each commit (`synchronous=normal`): it takes what came since the last checkpoint",
        tests=("test_the_guard_matters_normal_loses_the_last_moments",),
        on=("sqlite",),
    ),
    Promise(
        area="The disk",
        says="Confirmed though the disk failed to sync: lost",
        tests=("test_a_disk_that_fails_confirms_nothing",),
        on=("sqlite",),
    ),
    Promise(
        area="The disk",
        says="No checksums: a wrong payload is served",
        tests=("test_the_guard_matters_without_checksums_a_wrong_payload_is_served",),
        on=("sqlite",),
    ),
    Promise(
        area="The disk",
        says="No append-only file: a restart goes back",
        tests=("test_a_log_that_is_not_written_is_lost_with_its_server",),
        on=("redis",),
    ),
    Promise(
        area="Publishing",
        says="No known ids: what is published again is stored, or handled, twice",
        tests=(
            "test_without_known_ids_an_event_is_stored_twice",
            "test_without_known_ids_what_is_published_again_is_handled_twice",
            "test_without_known_ids_a_lost_answer_stores_twice",
        ),
        on=(*SHARED, "router"),
    ),
    Promise(
        area="Publishing",
        says="Not awaiting the engine's answer: what went into a dead line is lost",
        tests=("test_without_awaiting_confirms_what_was_sent_is_lost",),
        on=("redis", "rabbitmq", "nats"),
    ),
    Promise(
        area="Publishing",
        says="The driver's own retries: a command goes out again, unasked",
        tests=("test_the_driver_tries_nothing_again_by_itself",),
        on=("redis",),
    ),
    Promise(
        area="Publishing",
        says="Not `mandatory`: what goes to no queue is confirmed, and lost",
        tests=("test_without_mandatory_what_goes_nowhere_is_confirmed",),
        on=("rabbitmq",),
    ),
    Promise(
        area="Publishing",
        says="The history without a channel of its own: a new leader's log lacks what was confirmed",
        tests=("test_without_a_channel_of_its_own_the_history_loses_what_follows_a_new_leader",),
        on=("rabbitmq",),
    ),
    Promise(
        area=_HANDS,
        says="Acknowledging before the handler: SIGKILL in it loses the event",
        tests=(
            "test_acknowledging_before_the_handler_loses",
            "test_acknowledging_before_the_handler_loses_with_the_client",
        ),
        on=(*SHARED, "router"),
    ),
    Promise(
        area=_HANDS,
        says="A token that does not name the attempt, or a holder that does not know it is late: settled twice",
        tests=(
            "test_without_attempts_in_tokens_an_event_is_settled_twice",
            "test_tokens_that_do_not_name_the_attempt_settle_what_another_one_holds",
            "test_without_the_holders_clock_an_event_is_settled_twice",
        ),
        on=SHARED,
        lacks={"rabbitmq": "a token is a delivery of one channel, which the server knows no other of"},
    ),
    Promise(
        area=_HANDS,
        says="Acknowledging before the copy that goes on is there: a failed event is lost",
        tests=(
            "test_an_acknowledgement_before_its_copy_is_confirmed_loses",
            "test_an_acknowledgement_before_its_copy_is_stored_loses",
        ),
        on=("rabbitmq", "nats"),
    ),
    Promise(
        area=_HANDS,
        says="A suspect put into a queue that was just made: a server killed then answers nobody who asks it any more",
        tests=(
            "test_without_waiting_a_queue_made_for_a_suspect_goes_with_the_server",
            "test_without_deleting_it_a_queue_that_was_being_made_stays_broken",
        ),
        on=("rabbitmq",),
    ),
    Promise(
        area="Publishing",
        says="Queues that were young when the server was killed, not made anew: who publishes into them is refused",
        tests=("test_without_making_them_anew_the_queues_of_a_young_subscription_refuse_who_publishes",),
        on=("rabbitmq",),
    ),
    Promise(
        area=_HANDS,
        says="No note of what was given back untouched: an innocent is charged",
        tests=("test_without_its_note_what_is_given_back_is_charged",),
        on=("rabbitmq",),
    ),
    Promise(
        area=_HANDS,
        says="A copy that does not name what it follows: two of it",
        tests=("test_without_the_name_of_its_predecessor_a_message_has_two_successors",),
        on=("nats",),
    ),
    Promise(
        area=_HANDS,
        says="No note of an answer that was lost: what it leased waits for the end of its lease",
        tests=("test_without_a_note_of_lost_answers_what_was_leased_waits_for_its_lease",),
        on=("redis",),
    ),
    Promise(
        area="The log",
        says="Declared again at the end of a new log, as `$` is: what is in it by then is never delivered",
        tests=("test_declared_again_at_the_end_of_a_new_log_what_is_in_it_by_then_is_never_delivered",),
        on=("redis",),
    ),
    Promise(
        area="The log",
        says="No count of what others took: what was evicted is lost in silence",
        tests=("test_without_a_count_of_what_others_took_what_was_evicted_is_lost_in_silence",),
        on=("redis",),
    ),
    Promise(
        area="The log",
        says="Trimmed by count alone, as MAXLEN does: what is unread is lost",
        tests=("test_trimmed_by_count_alone_what_is_unread_is_lost",),
        on=("redis",),
    ),
    Promise(
        area="The log",
        says="Copied as a file, which drops its locks: the write-ahead log goes, and what is confirmed then with it",
        tests=("test_a_log_that_is_copied_as_a_file_loses_its_locks_and_then_events",),
        on=("sqlite",),
    ),
    Promise(
        area="Clients of a router",
        says="A client that does not say how far it came: what passed meanwhile is lost",
        tests=("test_without_a_position_a_break_loses",),
        on=("router",),
    ),
    Promise(
        area="Clients of a router",
        says="No cap on what waits for a client: one that does not read is kept, with all of it",
        tests=("test_without_a_cap_a_client_that_does_not_read_is_kept_with_all_that_waits",),
        on=("router",),
    ),
    Promise(
        area="Lines and input",
        says="A cancelled call that forgets its answer: the next one gets it",
        tests=("test_a_cancelled_call_has_its_answer_still",),
        on=("redis",),
    ),
    Promise(
        area="Lines and input",
        says="JSON that is read once, or by Python's own decoder: duplicates, NaN and lone surrogates pass",
        tests=(
            "test_without_a_second_look_duplicates_pass",
            "test_pythons_own_decoder_takes_it_or_runs_out_of_stack",
        ),
        on=("router",),
    ),
    Promise(
        area="Lines and input",
        says="Blocking on the line of all, or for longer than silence may last: all wait, or a line that lives is dead",
        tests=(
            "test_who_blocks_on_the_line_of_all_holds_up_everybody",
            "test_who_blocks_for_longer_than_silence_may_last_is_taken_for_dead",
        ),
        on=("redis",),
    ),
    Promise(
        area="Lines and input",
        says="Reconnecting left to the driver: what is not the driver's own is served no more",
        tests=("test_who_leaves_reconnecting_to_the_driver_is_served_no_more",),
        on=("nats",),
    ),
    Promise(
        area="Lines and input",
        says="A consumer that the server ended, not heeded: it waits for ever",
        tests=("test_without_heeding_it_a_consumer_that_the_server_ended_waits_for_ever",),
        on=("rabbitmq",),
    ),
    Promise(
        area="Lines and input",
        says="A publish without a bound: where nothing passes it waits for ever",
        tests=("test_without_a_bound_a_publish_waits_for_ever",),
        on=("rabbitmq",),
    ),
    Promise(
        area="Lines and input",
        says="A queue deleted while it is bound: the server ends the lines of who publishes into it",
        tests=("test_without_unbinding_it_first_a_queue_that_goes_breaks_who_publishes",),
        on=("rabbitmq",),
    ),
    Promise(
        area="Lines and input",
        says="The driver's own heartbeat: for minutes a dead line goes unnoticed",
        tests=(
            "test_by_the_drivers_own_heartbeat_a_dead_line_goes_unnoticed",
            "test_by_the_drivers_own_pings_a_dead_line_goes_unnoticed",
        ),
        on=("rabbitmq", "nats"),
    ),
    Promise(
        area="Lines and input",
        says="No allow-list for names: a topic carries a message of its own",
        tests=("test_without_an_allow_list_a_topic_carries_messages_of_its_own",),
        on=("nats",),
    ),
)
