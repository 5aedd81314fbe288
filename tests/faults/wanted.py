"""What users of such a system rely on, and the names of the tests that show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

ENGINES: Final = ("memory", "sqlite", "redis", "rabbitmq", "nats")
SHARED: Final = ENGINES[1:]
SERVERS: Final = ENGINES[2:]
ROUTER: Final = ("router",)
ALL: Final = (*ENGINES, *ROUTER)


class Promise(Struct, frozen=True, kw_only=True):
    """One sentence, and what shows it."""

    area: str
    says: str
    tests: tuple[str, ...]
    """Names of test functions, wherever they stand."""
    on: tuple[str, ...] = ALL
    """The columns in which it has a meaning: there each has a test, or a reason."""
    lacks: Mapping[str, str] = {}
    """By column, why no test shows it there."""


_PROCESS = "nothing outlives the process, and the bus says so"
_FILE = "there is no server, and no line to it that could break"

CONFORMANCE: Final = "Conformance"
CRASH: Final = "Crash"
NETWORK: Final = "Network"
STORAGE: Final = "Storage"
SEMANTICS: Final = "Semantics"
LOAD: Final = "Load"
INPUT: Final = "Bad input"
ACCESS: Final = "Access"
PITFALLS: Final = "Pitfalls of the stack"

PROMISES: Final = (
    Promise(
        area=CONFORMANCE,
        says="What is published comes back byte for byte: unicode, empty, large, deep",
        tests=(
            "test_a_payload_comes_back_byte_for_byte",
            "test_the_whole_envelope_survives",
            "test_the_largest_payload_passes_whole_and_in_fragments",
        ),
    ),
    Promise(
        area=CONFORMANCE,
        says="50 publishers and 50 competing consumers: nothing lost, and without a fault nothing twice",
        tests=(
            "test_fifty_publishers_and_fifty_competing_consumers",
            "test_two_processes_share_a_file",
            "test_routers_that_are_exchanged_lose_nothing_and_repeat_nothing",
            "test_two_clients_share_one_name_and_both_work",
        ),
    ),
    Promise(
        area=CONFORMANCE,
        says="20 topics and 2 groups: nobody gets what is another's",
        tests=("test_twenty_topics_and_two_groups_leak_nothing", "test_filters_by_topic_type_priority_and_source"),
    ),
    Promise(
        area=CONFORMANCE,
        says="A late joiner begins now or at the first, as it says",
        tests=("test_a_late_joiner_starts_now_or_at_the_first", "test_a_new_one_begins_where_it_says"),
    ),
    Promise(
        area=CONFORMANCE,
        says="Each source is read in its order; a retry holds up no other",
        tests=(
            "test_each_publisher_is_read_in_its_order",
            "test_a_retry_holds_up_no_other_and_order_stays_otherwise",
            "test_events_of_one_task_are_stored_in_their_order_and_those_of_many_all",
            "test_after_a_position_nothing_is_missing_and_nothing_comes_twice_while_a_thousand_are_published",
        ),
    ),
    Promise(
        area=CONFORMANCE,
        says="Three failures, then success, with true counts",
        tests=("test_three_failures_then_success", "test_failed_attempts_are_counted_and_end_with_the_dead_letters"),
    ),
    Promise(
        area=CONFORMANCE,
        says="A subscription goes on where it stopped, five times",
        tests=(
            "test_a_subscription_resumes_where_it_stopped_five_times",
            "test_a_subscription_with_a_name_remembers_what_came_while_nobody_was_there",
        ),
    ),
    Promise(
        area=CONFORMANCE,
        says="Closing twice, while others wait, ten at once, or cancelled leaves nothing behind",
        tests=(
            "test_closing_again_and_ten_at_once_is_closing_once",
            "test_closing_wakes_who_waits",
            "test_ten_stops_at_once_are_one_complete_stop",
            "test_a_stop_that_is_cancelled_leaves_nothing_running",
            "test_ten_stops_at_once_and_a_stop_before_the_start_are_harmless",
            "test_start_that_is_cancelled_stops_the_router",
        ),
    ),
    Promise(
        area=CONFORMANCE,
        says="10,000 events through two restarts, one in good order and one by SIGKILL",
        tests=("test_ten_thousand_events_through_two_restarts", "test_a_killed_router_loses_nothing"),
        lacks={"memory": _PROCESS, "sqlite": f"{_FILE}; its processes are killed below"},
    ),
    Promise(
        area=CRASH,
        says="SIGKILL of a publisher: what was confirmed is there, once",
        tests=("test_killed_publishers_lose_nothing_that_was_confirmed",),
        on=SHARED,
    ),
    Promise(
        area=CRASH,
        says="SIGKILL of a consumer before its effect, after it, after its acknowledgement",
        tests=(
            "test_killed_consumers_lose_nothing",
            "test_consumers_killed_at_each_point_lose_nothing",
            "test_another_client_takes_over_from_one_that_was_killed",
        ),
        lacks={"memory": _PROCESS},
    ),
    Promise(
        area=CRASH,
        says="SIGKILL of the router, with its clients",
        tests=("test_a_killed_router_loses_nothing", "test_routers_that_are_killed_lose_nothing"),
        on=(*SHARED, *ROUTER),
    ),
    Promise(
        area=CRASH,
        says="SIGKILL of the engine under load",
        tests=(
            "test_a_killed_server_loses_nothing",
            "test_what_waits_survives_a_kill_of_the_server",
            "test_killed_writers_leave_no_lock",
        ),
        on=SHARED,
    ),
    Promise(
        area=CRASH,
        says="SIGSTOP beyond the lease: another takes over, and the late acknowledgement is refused",
        tests=("test_a_stopped_consumer_is_too_late", "test_a_client_that_was_stopped_is_too_late"),
        lacks={"memory": _PROCESS},
    ),
    Promise(
        area=CRASH,
        says="SIGTERM drains, and ends with 0 within 20 s",
        tests=("test_sigterm_drains", "test_a_router_that_is_terminated_drains"),
        lacks={"memory": _PROCESS},
    ),
    Promise(
        area=NETWORK,
        says="Nothing passes: a publish fails within 10 s, all goes on within 15 s of its end",
        tests=("test_a_black_hole",),
        on=(*SERVERS, *ROUTER),
    ),
    Promise(
        area=NETWORK,
        says="A reset each second for a minute",
        tests=("test_a_reset_each_second",),
        on=(*SERVERS, *ROUTER),
    ),
    Promise(
        area=NETWORK,
        says="A line that is slow or gives a few bytes at a time is no dead one",
        tests=("test_a_bad_line_is_no_dead_one",),
        on=(*SERVERS, *ROUTER),
    ),
    Promise(
        area=NETWORK,
        says="The answer alone is lost: to a publish, a fetch, a settlement",
        tests=(
            "test_the_answer_of_a_publish_is_lost",
            "test_the_answer_of_a_fetch_is_lost",
            "test_the_answer_of_a_settlement_is_lost",
            "test_an_acknowledgement_alone_is_lost",
        ),
        on=(*SERVERS, *ROUTER),
    ),
    Promise(
        area=NETWORK,
        says="The engine comes a minute after the service: live, not ready, then ready within 5 s",
        tests=("test_a_service_waits_for_its_server",),
        on=SERVERS,
    ),
    Promise(
        area=STORAGE,
        says="What is confirmed has been written to the disk",
        tests=(
            "test_it_is_synced_before_it_is_confirmed",
            "test_a_power_cut_loses_nothing_that_was_confirmed",
            "test_the_servers_settings_are_the_promise",
            "test_a_log_that_is_not_written_is_lost_with_its_server",
        ),
        on=SHARED,
        lacks={
            "rabbitmq": "its quorum queues sync before they confirm, by its own manual; nothing of ours can watch that",
            "nats": "the server syncs as `sync_interval` says, which `wowevent doctor` reads to whoever may ask it",
        },
    ),
    Promise(
        area=STORAGE,
        says="A full disk or memory is told within 10 s, acknowledging goes on, and so does all when there is room",
        tests=(
            "test_a_full_disk_is_told_and_got_over",
            "test_a_disk_without_a_byte_left",
            "test_full_memory_is_told_and_got_over",
            "test_an_alarmed_server_takes_nothing_and_gives_all",
            "test_an_account_that_is_full",
            "test_a_disk_that_is_full",
        ),
        on=SHARED,
    ),
    Promise(
        area=STORAGE,
        says="A disk that fails: nothing is confirmed that is not on it",
        tests=("test_a_disk_that_fails_confirms_nothing",),
        on=SHARED,
        lacks=dict.fromkeys(SERVERS, "the disk is its server's, whose silence and end stand above"),
    ),
    Promise(
        area=STORAGE,
        says="A damaged or emptied log is refused, or its intact part served; never a wrong payload",
        tests=(
            "test_a_damaged_file_serves_only_what_is_intact",
            "test_one_damaged_event_costs_no_other",
            "test_an_emptied_log_begins_anew",
            "test_entries_that_others_took_are_lost_and_said",
            "test_what_somebody_deleted_is_made_again",
            "test_a_damaged_event_is_left_out_of_a_catch_up_and_said",
        ),
        on=(*SHARED, *ROUTER),
    ),
    Promise(
        area=SEMANTICS,
        says="Poison gets its attempts, then one dead letter; innocents beside it are not charged",
        tests=(
            "test_poison_gets_exactly_the_attempts_promised_then_one_dead_letter",
            "test_poison_gets_its_attempts_and_innocents_none_of_the_blame",
            "test_an_innocent_keeps_its_own_attempts",
            "test_poisons_side_by_side",
            "test_poison_that_kills_its_client_gets_its_attempts",
        ),
    ),
    Promise(
        area=SEMANTICS,
        says="SIGKILL between the dead letter and its acknowledgement leaves one dead letter",
        tests=(
            "test_a_kill_while_burying_leaves_one_dead_letter",
            "test_a_kill_at_any_message_of_a_burial_leaves_one_dead_letter",
            "test_a_kill_between_the_copy_and_the_answer_delivers_once",
        ),
        on=SHARED,
    ),
    Promise(
        area=SEMANTICS,
        says="Retries come within 20 % of their time, also across a restart, and hold up no other",
        tests=(
            "test_a_delayed_retry_comes_when_it_is_due_and_holds_up_nothing",
            "test_a_delayed_retry_survives_a_reopening",
            "test_backoff_survives_restarts",
            "test_backoff_survives_kills_of_consumers",
            "test_backoff_survives_a_kill_of_who_sends_on",
            "test_retry_after_charges_no_attempt_and_comes_when_it_says",
        ),
    ),
    Promise(
        area=SEMANTICS,
        says="The last 10,000 ids are known, also after a restart",
        tests=(
            "test_the_last_ten_thousand_ids_are_known_whatever_their_age",
            "test_ten_thousand_ids_are_known_after_a_restart",
            "test_what_is_published_again_is_handled_once",
        ),
        on=ENGINES,
    ),
    Promise(
        area=SEMANTICS,
        says="A ledger is exact after 100 kills",
        tests=("test_a_ledger_is_exact_after_kills",),
        on=SHARED,
    ),
    Promise(
        area=SEMANTICS,
        says="A replay is the original, moves no cursor, and is marked",
        tests=(
            "test_replay_hands_over_the_original_events",
            "test_a_replay_moves_no_cursor",
            "test_a_replay_is_the_original",
        ),
        on=ENGINES,
    ),
    Promise(
        area=SEMANTICS,
        says="A clock that jumps ends no lease and disorders nothing",
        tests=(
            "test_a_wall_clock_that_jumps_ends_no_lease",
            "test_stored_at_never_decreases_even_if_the_clock_is_set_back",
        ),
        on=ENGINES,
    ),
    Promise(
        area=SEMANTICS,
        says="No limit takes what is unread in silence",
        tests=(
            "test_the_age_limit_is_hard_and_told_once",
            "test_the_byte_limit_is_hard_and_told_once",
            "test_the_count_limit_drops_nothing_that_is_unread",
            "test_a_reader_is_told_of_the_gap",
            "test_a_subscription_that_nobody_serves_lapses_and_is_told",
            "test_a_log_that_was_trimmed_says_how_many_are_lost",
        ),
    ),
    Promise(
        area=LOAD,
        says="A thousand clients; one of them stops reading, is cut with its position, and the others do not notice",
        tests=("test_one_that_does_not_read_among_a_thousand",),
        on=ROUTER,
    ),
    Promise(
        area=LOAD,
        says="Two thousand clients",
        tests=(),
        on=ROUTER,
        lacks={"router": "the benchmarks have them, and no test"},
    ),
    Promise(
        area=LOAD,
        says="Storms of subscriptions and of clients that come and go leave nothing",
        tests=("test_a_storm_of_subscriptions_leaves_the_others_served", "test_five_hundred_that_come_and_go"),
        on=ROUTER,
    ),
    Promise(
        area=INPUT,
        says="What is no JSON, no event, no type, too deep or too large is refused, and the next one is served",
        tests=(
            "test_json_that_is_not_strict_is_refused_on_one_short_line",
            "test_what_is_no_event_is_refused_on_one_short_line",
            "test_a_payload_may_be_32_levels_deep_in_any_frame_around_it",
            "test_what_cannot_be_carried_is_refused_before_anything_is_stored",
            "test_what_is_no_frame_is_answered_and_the_connection_goes_on",
            "test_a_wrong_type_for_any_field_is_an_error_frame_or_means_nothing",
            "test_a_frame_that_is_too_large_ends_the_connection",
        ),
    ),
    Promise(
        area=INPUT,
        says="Names that are none are refused at every entrance, and no pattern is a bomb",
        tests=(
            "test_what_is_neither_a_topic_nor_a_pattern",
            "test_no_pattern_is_a_bomb",
            "test_names_that_are_none_are_refused_at_every_entrance",
            "test_pattern_bombs_cost_others_nothing",
            "test_a_handshake_cannot_smuggle_lines_into_the_answer_or_the_log",
        ),
    ),
    Promise(
        area=INPUT,
        says="Each violation of the WebSocket protocol has its close code",
        tests=("test_each_violation_has_its_close_code_and_others_go_on",),
        on=ROUTER,
    ),
    Promise(
        area=ACCESS,
        says="No, wrong, expired, early, unsigned, foreign and revoked tokens let nobody in",
        tests=(
            "test_a_bad_token_lets_nobody_in",
            "test_revoked_expired_and_of_another_namespace",
            "test_a_socket_ends_with_its_token_within_two_seconds",
        ),
        on=ROUTER,
    ),
    Promise(
        area=ACCESS,
        says="What is asked for lies within what is granted, at every door",
        tests=(
            "test_what_lies_within_matches_nothing_more",
            "test_each_wanted_pattern_lies_within_one_that_is_granted",
            "test_a_token_publishes_what_it_grants",
            "test_a_token_hears_what_it_grants",
            "test_the_past_needs_a_right_of_its_own",
            "test_dead_letters_are_those_of_the_grant_however_they_are_asked_for",
            "test_a_token_without_the_right_is_refused_whatever_else_it_may",
        ),
        on=ROUTER,
    ),
    Promise(
        area=ACCESS,
        says="Pages of other origins are kept away; nobody binds to the world without tokens",
        tests=("test_pages_and_hosts_that_may_ask", "test_others_are_let_in_only_if_that_is_said"),
        on=ROUTER,
    ),
    Promise(
        area=ACCESS,
        says="No secret and no payload is in a log",
        tests=("test_no_secret_is_in_any_line_of_the_log", "test_no_secret_and_no_payload_is_in_any_line"),
        on=ROUTER,
    ),
    Promise(
        area=PITFALLS,
        says="No command goes out twice: the driver tries nothing again by itself",
        tests=(
            "test_the_driver_tries_nothing_again_by_itself",
            "test_a_publish_whose_answer_is_lost_was_sent_once_and_is_stored_once",
        ),
        on=("redis",),
    ),
    Promise(
        area=PITFALLS,
        says="Who blocks has a connection of its own, for 2 s at most; what a lost answer leased comes at once",
        tests=(
            "test_a_follower_waits_on_a_connection_of_its_own_for_two_seconds_at_most",
            "test_what_a_lost_answer_had_leased_comes_at_once_uncharged",
        ),
        on=("redis",),
    ),
    Promise(
        area=PITFALLS,
        says="A cancelled command mixes up no answers",
        tests=("test_cancelled_calls_never_mix_up_the_answers_of_others", "test_a_cancelled_call_has_its_answer_still"),
        on=("redis",),
    ),
    Promise(
        area=PITFALLS,
        says="What was evicted or deleted has a new epoch, and nobody goes on at the end in silence",
        tests=("test_an_emptied_log_begins_anew", "test_a_deleted_subscription_is_told_and_can_be_made_again"),
        on=("redis",),
    ),
    Promise(
        area=PITFALLS,
        says="Trimming spares what is unread; what others trim is said",
        tests=(
            "test_the_count_limit_drops_nothing_that_is_unread",
            "test_entries_that_others_took_are_lost_and_said",
        ),
        on=("redis",),
    ),
    Promise(
        area=PITFALLS,
        says="What goes to no queue is not confirmed",
        tests=("test_without_mandatory_what_goes_nowhere_is_confirmed",),
        on=("rabbitmq",),
    ),
    Promise(
        area=PITFALLS,
        says="No publish waits without bound; a dead line and a consumer that is gone are noticed",
        tests=(
            "test_a_black_hole",
            "test_lines_that_died_in_silence",
            "test_nobody_looks_and_it_is_noticed_all_the_same",
        ),
        on=("rabbitmq", "nats"),
    ),
    Promise(
        area=PITFALLS,
        says="No server drops what fails often, or charges what lies beside it",
        tests=("test_an_innocent_keeps_its_own_attempts", "test_three_failures_then_success"),
        on=("rabbitmq", "nats"),
    ),
    Promise(
        area=PITFALLS,
        says="No line break comes into a name, at any entrance",
        tests=("test_what_is_neither_a_topic_nor_a_pattern", "test_names_that_are_none_are_refused_at_every_entrance"),
        on=ROUTER,
    ),
    Promise(
        area=PITFALLS,
        says="A cancellation is not swallowed",
        tests=("test_a_stop_that_is_cancelled_leaves_nothing_running", "test_a_cancelled_fetch_loses_no_event"),
        on=ENGINES,
    ),
    Promise(
        area=PITFALLS,
        says="The decoder is strict",
        tests=("test_json_that_is_not_strict_is_refused_on_one_short_line", "test_no_256_kib_cost_more_than_a_moment"),
        on=ROUTER,
    ),
    Promise(
        area=PITFALLS,
        says="A client has a bounded outbox, and a frame a bounded size",
        tests=(
            "test_a_client_that_does_not_read_stalls_nobody_and_is_cut_with_its_position",
            "test_a_frame_that_is_too_large_ends_the_connection",
        ),
        on=ROUTER,
    ),
    Promise(
        area=PITFALLS,
        says="Nothing else in the process opens the file and drops its locks",
        tests=(
            "test_a_new_bus_in_the_child_is_refused_the_file_and_the_parent_goes_on",
            "test_sqlite_while_others_use_it",
        ),
        on=("sqlite",),
    ),
    Promise(
        area=PITFALLS,
        says="What SIGKILL cannot show, a disk that forgets does",
        tests=("test_it_is_synced_before_it_is_confirmed", "test_a_power_cut_loses_nothing_that_was_confirmed"),
        on=("sqlite",),
    ),
)
