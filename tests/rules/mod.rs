//! The rules of the `Store` trait, a function each; `tests/conformance.rs` runs them against memory and single servers,
//! `tests/topologies` against a cluster.

pub mod appending;
pub mod asking;
pub mod commons;
pub mod dead_letters;
pub mod exclusive;
pub mod groups;
pub mod history;
pub mod leases;
pub mod looking_back;
pub mod reading;
pub mod settling;
pub mod streams;
pub mod sweeping;
pub mod topology;
pub mod users;

/// Hands all rules, by module, to another macro.
macro_rules! every_rule {
    ($run:ident) => {
        $run! {
            appending:
                ten_thousand_events_are_read_in_the_order_of_the_calls,
                partitions_of_one_bucket_keep_their_order_in_mixed_calls,
                nothing_to_append_has_no_results,
                an_event_cancelled_before_it_was_sent_is_given_up,
                metadata_and_data_come_back_byte_for_byte,
                a_second_event_with_the_key_is_answered_with_the_first_id,
                one_call_with_the_same_key_twice_writes_once,
                idempotency_keys_belong_to_a_partition,
                a_key_is_free_again_after_its_window,
                of_two_racing_events_with_one_key_one_is_written,
                a_delayed_event_is_no_entry_before_it_is_due,
                a_delayed_event_holds_its_idempotency_key_while_it_waits,
                the_ttl_of_a_delayed_event_counts_from_when_it_is_due,
                two_processes_that_move_delayed_events_move_each_once;
            topology:
                an_opened_partition_is_known,
                the_number_of_partitions_is_decided_once,
                lanes_of_a_partition_are_streams_of_their_own,
                topology_lists_specs_with_their_options,
                a_new_partition_has_every_durable_group_that_matches_at_its_beginning,
                a_join_answers_the_partitions_its_pattern_matches,
                a_join_reaches_every_partition_of_a_type,
                joining_an_exact_type_makes_it_known,
                a_group_starts_at_the_beginning_at_latest_or_at_a_time,
                latest_comes_after_what_was_removed_too,
                joining_again_does_not_move_the_group,
                other_options_of_a_live_member_are_refused,
                the_only_member_may_change_the_options,
                changes_are_announced_to_others,
                reading_without_the_group_says_so,
                one_missing_group_takes_nothing_from_the_others,
                a_lost_group_comes_back_after_what_it_had,
                a_lost_group_of_a_new_stream_comes_back_at_the_beginning;
            reading:
                a_new_entry_is_delivered_for_the_first_time,
                a_read_takes_at_most_count_of_each_partition,
                a_read_without_wait_answers_at_once,
                a_read_that_waits_in_vain_ends_empty,
                a_waiting_read_gets_what_is_published_meanwhile,
                a_delayed_event_wakes_a_waiting_read_when_it_moves,
                a_read_that_is_dropped_swallows_nothing,
                a_wake_ends_a_waiting_read,
                two_consumers_of_a_group_share_its_entries,
                groups_get_all_entries_each,
                inspect_tells_pending_lag_and_place,
                foreign_entries_are_delivered_as_they_are,
                unreadable_metadata_is_delivered_as_it_is;
            settling:
                acknowledging_can_be_repeated,
                a_late_success_acknowledges_an_entry_that_moved,
                what_is_not_held_as_said_is_not_changed,
                each_entry_of_a_batch_is_settled_on_its_own,
                a_retry_waits_for_its_time_and_belongs_to_nobody,
                every_claim_counts_a_delivery,
                a_hand_back_is_due_at_once_and_does_not_count,
                two_consumers_that_race_for_retries_never_hold_the_same,
                due_names_the_partitions_of_that_group_and_bucket,
                claiming_takes_no_more_than_asked,
                a_dead_letter_is_written_and_acknowledged,
                a_retried_entry_can_become_a_dead_letter,
                an_acknowledged_retry_is_no_longer_due,
                a_consumer_with_pending_entries_is_not_removed;
            asking:
                an_inbox_holds_what_was_posted_before_and_after_it_was_opened,
                a_waiting_inbox_gets_what_is_posted_meanwhile,
                many_messages_come_in_their_order_and_once,
                what_an_inbox_has_received_is_not_kept,
                a_removed_inbox_is_empty,
                a_closed_store_has_no_inbox,
                a_publisher_is_told_where_its_entry_is,
                decisions_tell_what_each_group_did,
                nothing_is_decided_on_what_is_not_there,
                transient_events_reach_all_who_hear_their_bucket_now,
                who_hears_no_more_is_told_nothing,
                transient_events_leave_nothing_behind;
            leases:
                a_lease_that_runs_is_renewed,
                a_lapsed_lease_is_told,
                a_lapse_that_was_noticed_is_told_even_if_nothing_was_taken,
                a_lapse_is_told_until_the_lease_is_released,
                what_is_held_after_a_release_is_taken_too,
                one_process_looks_after_a_bucket,
                the_living_keep_their_entries,
                entries_of_a_dead_consumer_are_due_at_once,
                reaping_says_how_many_consumers_went,
                a_dead_consumer_without_entries_is_removed,
                a_consumer_that_never_had_a_lease_is_dead,
                leases_hold_for_their_bucket_alone,
                an_event_that_kills_its_process_each_time_ends_as_dead_letter,
                crashes_are_remembered_over_retries_and_hand_backs,
                waiting_retries_outlive_the_consumer_that_failed,
                two_processes_that_reap_take_each_entry_once,
                foreign_entries_of_a_dead_consumer_are_taken_too;
            exclusive:
                one_living_consumer_owns_a_partition,
                only_the_owner_reads,
                an_owned_read_waits_for_what_comes,
                an_owned_read_waits_past_what_the_group_has_behind_it,
                a_partition_is_not_owned_before_nothing_is_pending_under_others,
                what_waits_is_known_with_its_key_and_claimed_by_id,
                entries_of_lost_replies_wait_again_when_the_partition_is_asked_for,
                members_are_the_living_holders;
            sweeping:
                acknowledged_entries_beyond_the_number_kept_go_oldest_first,
                a_long_stream_is_swept_in_bounded_steps,
                undelivered_entries_stay_for_the_slowest_group,
                pending_entries_stay,
                one_stuck_pending_entry_holds_up_no_others,
                one_stuck_pending_entry_does_not_keep_old_ones,
                what_is_young_stays_behind_a_stuck_pending_entry,
                large_entries_are_swept_in_small_steps,
                acknowledged_entries_go_when_their_ttl_passed,
                an_event_that_expires_undelivered_becomes_a_dead_letter,
                an_event_that_expires_behind_a_longer_lived_one_does_not_vanish,
                an_event_whose_publisher_gave_the_ttl_is_only_reported,
                without_dead_letters_expiry_is_only_reported,
                without_a_group_entries_go_quietly_when_their_ttl_passed,
                an_event_that_never_expires_stays,
                entries_without_a_readable_ttl_have_the_default,
                old_dead_letters_go,
                a_redriven_event_expires_for_its_group_alone,
                sweeping_what_does_not_exist_does_nothing;
            dead_letters:
                pages_hold_each_once_while_new_ones_arrive,
                letters_of_a_type_come_oldest_first,
                queries_narrow_by_type_group_time_and_id,
                nonsense_is_refused,
                redrive_and_purge_refuse_an_empty_query,
                a_redriven_event_is_for_the_group_that_failed_it,
                a_redriven_foreign_entry_stays_with_its_group,
                redriving_keeps_the_order_of_death,
                redrive_by_id_moves_these_alone,
                two_redrives_at_once_move_each_once,
                purge_deletes_what_matches,
                letters_of_every_partition_of_a_type_are_found;
            history:
                history_is_read_in_pieces_without_taking_anything,
                a_partition_that_is_not_there_has_no_history,
                history_tells_foreign_entries_as_they_are,
                an_event_is_found_both_ways_and_in_bounded_steps,
                an_id_in_a_header_is_not_the_events,
                a_delayed_event_is_known_while_it_waits_and_its_entry_is_noted,
                a_redriven_event_is_noted_for_its_group,
                notes_go_with_the_entries,
                standing_follows_an_entry_from_delivery_to_its_end,
                dead_letters_of_an_event_are_found_among_others,
                a_group_that_starts_later_is_past_what_was_before;
            looking_back:
                a_replay_merges_all_streams_of_a_type_in_the_order_of_their_entries,
                a_replay_leaves_out_copies_of_redriven_events,
                an_event_is_explained_in_whatever_stream_it_is,
                an_event_is_found_while_its_publishers_clock_is_not_too_wrong,
                an_explanation_follows_a_redriven_event;
            streams:
                a_full_stream_takes_no_more_and_says_so,
                acknowledged_entries_make_room_in_a_full_stream,
                room_is_found_behind_many_pending_entries,
                what_follows_a_refused_event_keeps_its_order,
                a_refused_event_does_not_use_up_its_idempotency_key,
                delayed_events_are_never_refused,
                the_publishers_bound_holds_where_the_type_has_none,
                without_a_group_only_a_retention_makes_room,
                a_bound_set_by_one_process_holds_in_others,
                retention_by_time_outlasts_the_ttl_or_ends_before_it,
                retention_by_count_keeps_that_many_acknowledged_ones,
                without_a_group_retention_is_for_all_entries,
                what_is_not_read_is_counted_over_what_was_taken_out,
                live_consumers_are_those_with_a_lease;
            groups:
                a_deleted_group_is_gone_with_all_that_waited_in_it,
                publishers_do_not_make_a_deleted_group_again,
                a_group_with_a_live_consumer_is_not_deleted,
                what_another_pattern_covers_stays,
                an_ephemeral_group_ends_with_its_last_holder,
                groups_that_are_not_ephemeral_outlast_their_holders,
                durable_groups_without_a_holder_are_named,
                an_ephemeral_group_of_the_living_stays,
                of_a_member_that_joins_while_the_last_one_leaves_nothing_is_lost,
                deletions_at_once_agree;
            commons:
                a_document_changes_only_from_what_is_expected,
                of_racing_changes_to_a_document_one_wins,
                versions_rise_whatever_becomes_of_the_documents,
                what_is_known_is_not_read_again,
                changed_documents_are_announced_to_all,
                a_limit_grants_its_burst_and_then_by_its_rate,
                a_limit_holds_for_all_who_take_together,
                limits_are_told_apart_by_their_names,
                a_changed_rate_holds_from_then_on,
                what_is_no_limit_is_refused,
                a_message_stays_where_it_was_found_first,
                all_who_find_a_message_at_once_get_one_answer,
                where_a_message_was_found_is_forgotten_after_its_life,
                records_come_with_their_head_counters_and_times,
                a_batch_that_is_there_changes_nothing,
                records_that_do_not_follow_their_chain_are_refused,
                a_chain_of_which_nothing_is_known_begins_anywhere,
                chains_written_at_once_are_whole,
                records_beyond_the_last_ones_are_trimmed,
                old_records_are_trimmed_and_their_chains_forgotten,
                chains_without_records_are_forgotten_when_they_are_old,
                many_records_are_trimmed_in_bounded_steps,
                trimming_at_once_removes_each_record_once,
                counters_and_times_are_those_of_all_buckets,
                members_are_here_as_long_as_they_say;
            users:
                an_open_store_is_connected,
                what_one_user_does_another_sees,
                closing_ends_waiting_reads_in_time,
                a_closed_store_refuses;
        }
    };
}
