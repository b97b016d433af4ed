//! The lists of facts, and the macros that turn them into tests.

/// Generates a test for each fact that every engine must guarantee.
///
/// The expression creates a new [`Fixture`](crate::Fixture) for each test. The tests are placed where the macro is
/// called, so give each engine its own module.
#[macro_export]
macro_rules! conformance {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            writing {
                a1_the_first_append_creates_the_stream_with_versions_from_1
                a1_one_event_can_be_written_without_a_list
                a1_versions_are_contiguous_over_appends_and_streams_do_not_mix
                a1_the_outcome_names_versions_position_and_time
                a1_the_positions_of_one_append_are_one_contiguous_block
                a2_any_holds_for_every_stream
                a2_no_stream_holds_for_a_missing_stream_only
                a2_stream_exists_holds_for_an_existing_stream_only
                a2_exact_holds_at_that_version_only
                a2_exact_0_holds_for_a_missing_stream_only
                a2_a_conflict_names_stream_expected_and_actual_and_writes_nothing
                a3_an_append_that_fails_writes_none_of_its_events
                a3_an_append_that_fails_takes_no_other_down
                a4_an_append_of_no_events_answers_the_current_version_and_writes_nothing
                a4_an_append_of_no_events_still_checks_the_expectation
                a5_one_append_writes_several_streams_each_with_its_expectation
                a5_a_conflict_lists_every_stream_that_failed_and_writes_none
                a5_a_stream_can_be_checked_without_being_written
                a5_a_stream_named_twice_is_refused
                a5_no_reader_sees_part_of_an_append
                a7_positions_have_no_gaps_whatever_failed_in_between
                a7_nothing_new_appears_below_a_position_that_was_seen
                a8_one_append_has_one_time_from_the_clock_of_the_store
                a8_a_clock_set_back_is_overruled_by_the_log_and_reported
                a8_a_clock_before_1970_is_no_reason_to_fail
                a8_time_never_runs_backwards_in_position_order
                a11_a_handle_that_is_behind_is_judged_by_the_log
            }
            limits {
                a6_ids_that_begin_with_at_cannot_be_written
                a6_a_stream_id_has_1_to_255_bytes
                a6_a_payload_over_its_limit_is_refused
                a6_metadata_over_its_limit_is_refused
                a6_an_append_of_too_many_events_is_refused
                a6_an_append_of_too_many_bytes_is_refused
                a6_the_default_limits_are_those_of_the_contract
                a6_what_is_wrong_is_said_before_what_is_unexpected
            }
            concurrency {
                a9_twenty_writers_of_one_stream_that_expect_nothing_all_succeed
                a9_of_many_writers_of_one_version_exactly_one_wins
                a9_writers_that_try_again_after_a_conflict_all_succeed
                a9_writers_of_different_streams_do_not_disturb_each_other
                a9_one_atomic_transfer_at_a_time_holds_over_two_streams
                a9_a_caller_that_would_rather_fail_is_served_or_told_overloaded
                a9_more_writers_than_the_queue_holds_wait_and_succeed
                a9_writes_that_nobody_polls_keep_nothing_from_others
                a10_a_dropped_write_is_whole_or_absent
                a10_a_task_that_is_aborted_leaves_the_store_usable
            }
            commands {
                a12_the_same_command_again_answers_the_first_outcome_and_writes_nothing
                a12_a_command_keeps_its_name
                a12_a_command_without_events_is_remembered
                a12_the_same_key_for_another_command_is_refused
                a12_a_key_is_unique_in_the_store_not_in_a_stream
                a12_the_key_is_judged_before_ids_and_expectation
                a12_a_command_that_failed_is_not_remembered
                a12_a_command_can_be_looked_up_by_its_key
                a12_a_command_whose_events_are_known_by_their_ids_is_remembered
                a12_of_the_same_command_sent_by_many_at_once_one_is_carried_out
            }
            idempotency {
                b1_ids_for_some_events_of_an_append_only_are_refused
                b1_without_ids_nothing_is_deduplicated
                b1_an_id_is_a_text_of_1_to_255_bytes_or_a_uuid
                b1_ids_compare_as_bytes
                b1_the_canonical_text_of_a_uuid_is_that_uuid
                b1_an_event_without_an_id_reads_with_the_same_derived_one_everywhere
                b1_derived_ids_are_never_the_same_twice
                b1_ids_of_the_derived_form_cannot_be_written
                b2_a_retry_is_known_whatever_it_expects
                b2_the_outcome_of_a_retry_says_how_many_events_were_known
                b2_a_part_of_an_earlier_append_is_known_with_its_versions
                b2_an_append_over_several_streams_is_known_as_a_whole
                b2_an_append_over_several_streams_known_in_part_is_refused
                b2_of_the_same_write_sent_by_many_at_once_one_is_written
                b3_the_same_id_with_other_content_is_refused_and_named
                b3_metadata_is_not_compared_and_the_first_stays
                b4_known_events_are_skipped_and_the_rest_appended
                b4_an_append_known_in_part_is_refused_where_it_cannot_be_a_retry
                b5_the_same_id_twice_in_one_append_is_stored_once
                b5_the_same_id_twice_in_one_append_with_other_content_is_refused
                b5_the_same_id_in_another_stream_is_another_event
            }
            reading {
                c1_a_stream_is_read_forward_and_backward_between_versions
                c1_all_is_read_forward_and_backward_between_positions
                c1_all_holds_every_stream_in_the_order_of_writing
                c1_a_place_of_the_wrong_kind_is_refused
                c2_a_missing_stream_reads_as_empty
                c2_an_empty_store_reads_as_empty
                c2_version_existence_and_metrics_of_a_stream_can_be_asked
                c2_streams_are_listed_in_pages_in_the_order_of_their_first_events
                c2_the_streams_of_a_category_are_listed_in_pages
                c5_events_read_back_byte_for_byte
                c5_empty_metadata_is_not_no_metadata
                c5_the_shape_of_a_type_reads_back
                c5_ids_read_back_as_they_were_written
                c7_a_stream_is_read_as_of_a_version_a_time_or_a_position
                c7_all_is_read_as_of_a_position_or_a_time
                c7_the_past_is_bounded_in_a_stream_among_others
            }
            paging {
                c4_pages_of_any_size_give_the_same_events
                c4_pages_that_are_read_ahead_are_those_read_one_after_the_other
                c4_a_stretch_of_large_events_makes_no_small_pages_after_it
                c4_pages_without_progress_end_a_read_with_an_error
                c4_a_page_that_contradicts_itself_ends_a_read_with_an_error
                c4_a_backward_read_gives_every_event_at_the_borders_of_its_pages
                c4_a_page_is_bounded_in_events_and_bytes_but_holds_one_at_least
                c4_a_page_counts_metadata_in_its_bytes
                c4_a_page_ends_after_10_000_rows_that_did_not_match
                c4_a_page_of_all_names_the_last_event_it_looked_at
                c4_a_read_ends_at_the_head_its_first_page_saw
                c4_half_read_readers_block_nobody
                c4_a_read_is_a_stream_of_events_and_of_batches
                c4_a_next_that_is_dropped_loses_no_event
            }
            filters {
                c3_every_filter_answers_what_the_evaluator_says
                c3_a_filter_goes_with_bounds_and_limits
                c3_two_filters_of_one_read_are_joined_by_and
                c3_the_answers_are_those_of_the_contract
                c3_time_bounds_include_every_event_of_that_time
                c3_a_long_list_of_values_is_no_reason_to_fail
            }
            watching {
                d1_a_watch_from_the_start_gives_history_and_then_what_is_written
                d1_a_watch_begins_after_the_place_that_was_given
                d1_without_a_start_a_watch_begins_at_the_present
                d1_the_start_is_fixed_before_the_await_returns
                d1_a_watch_after_a_place_to_come_begins_there
                d1_a_place_of_the_wrong_kind_is_refused
                d1_no_gap_and_no_duplicate_while_writers_run
                d1_a_stream_a_category_and_a_filter_are_watched
                d1_the_same_filters_hold_for_history_and_for_what_is_written
                d2_the_right_watchers_are_woken
                d2_thousands_of_idle_watchers_are_no_burden
                d3_a_write_wakes_a_waiting_watcher
                d4_a_retry_that_writes_nothing_gives_watchers_nothing
            }
            watched {
                d5_a_slow_watcher_gets_each_event_of_a_flood_once_and_in_order
                d5_a_flood_of_large_events_is_watched_whole
                d5_a_watcher_that_pauses_again_and_again_misses_nothing
                d6_dropping_a_watcher_frees_it
                d6_a_watch_that_was_never_begun_costs_nothing
                d6_closing_tells_every_watcher_once
                d6_a_watch_that_closing_finds_busy_is_told_too
                d6_a_watch_is_resumed_from_the_last_place
                d6_a_next_that_is_dropped_loses_no_event
                d6_a_watch_outlives_the_handles_it_was_made_with
            }
            snapshots {
                e1_a_snapshot_that_was_never_saved_is_none
                e1_a_load_holds_as_many_events_as_it_asks_for
                c2_a_page_of_no_events_tells_the_head
                e1_there_is_one_snapshot_per_stream_and_name
                e1_all_has_snapshots_of_its_own_at_positions
                e1_a_snapshot_keeps_its_fingerprint_and_the_time_it_was_saved
                e1_one_call_loads_the_snapshot_and_the_events_after_it
                e1_a_load_up_to_a_version_has_nothing_above_it
                e1_a_load_of_a_long_stream_goes_on_in_pages
                e2_an_older_snapshot_over_a_newer_one_does_nothing
                e2_a_snapshot_beyond_the_end_is_refused
                e2_a_place_of_the_wrong_kind_is_refused
                e3_bytes_in_are_bytes_out
                e3_a_snapshot_changes_nothing_of_its_stream
                e3_a_stream_is_rebuilt_from_its_snapshot_and_what_came_after
                e4_a_state_whose_next_events_were_removed_is_not_brought_up_to_date
                e4_a_snapshot_of_another_state_is_never_used
                e4_a_state_that_the_codec_cannot_carry_is_not_saved
                e4_a_state_that_the_codec_carries_is_saved
            }
            store {
                f1_every_store_has_an_id_of_its_own
                f1_two_stores_share_nothing
                f1_clones_of_a_handle_are_the_same_store
                f3_a_closed_store_says_so_whatever_it_is_asked
                f3_closing_twice_does_nothing
                f3_a_close_that_nobody_polls_keeps_no_other_from_closing
                f3_closing_by_many_at_once_is_closing_once
                f3_a_write_beside_a_close_succeeds_or_says_closed
                f3_a_half_read_reader_of_a_closed_store_ends
                cells_are_set_if_they_are_at_the_expected_revision
                cells_are_removed_and_never_get_an_old_revision_again
                cells_are_apart_and_take_any_bytes
                cells_are_listed_by_prefix_in_the_order_of_their_keys
                cells_are_set_by_an_append_together_with_its_events
                cells_and_events_of_an_append_are_written_together_or_not_at_all
                cells_can_be_set_by_an_append_without_events
                cells_are_not_set_again_by_a_retry
                cells_of_an_append_are_refused_if_they_cannot_be_valid
                cells_set_by_appends_of_many_at_once_count_what_they_wrote
                cells_set_by_many_at_once_are_won_by_one
                cells_and_appends_go_on_beside_each_other
            }
            model {
                every_engine_answers_like_the_model
            }
            tags {
                i1_tags_read_back_in_the_order_given
                i1_an_event_has_at_most_32_tags
                i1_a_tag_of_255_bytes_and_of_any_characters_is_stored_and_found
                i1_the_same_tag_twice_in_one_event_is_refused
                i1_tags_are_part_of_the_checksum
                i1_tags_count_in_the_bytes_of_an_append_and_of_a_page
                i1_tags_are_not_compared_and_the_first_stay
                i1_tags_stand_beside_everything_else_of_an_event
            }
            queries {
                i2_every_query_answers_what_the_evaluator_says
                i2_the_answers_are_those_of_the_contract
                i2_a_tag_that_begins_with_another_is_another
                i2_a_query_goes_with_bounds_limits_and_other_clauses
                i2_events_are_counted
                i2_a_query_over_its_bounds_is_refused_before_anything_is_done
                i2_the_cost_grows_with_what_matches_and_not_with_the_log
                i2_a_query_is_watched
                i2_each_of_many_watchers_gets_the_events_of_its_own_tags
            }
            tag_model {
                i5_every_engine_judges_conditions_like_the_model
            }
            conditions {
                i3_a_condition_that_holds_is_no_obstacle
                i3_a_conflict_names_the_query_and_the_first_matching_position_and_writes_nothing
                i3_conditions_stand_beside_expectations_and_every_one_that_fails_is_listed
                i3_a_condition_is_judged_after_0_at_the_head_and_beyond_it
                i3_a_read_tells_up_to_where_it_has_seen_the_log
                i3_an_append_without_events_only_checks
                i3_every_kind_of_query_is_judged
                i3_a_condition_guards_all_streams_of_an_append
                i3_what_is_wrong_with_a_condition_is_said_before_what_is_unexpected
                i3_a_failed_condition_takes_no_other_down
                i5_a_retry_by_ids_is_known_although_its_own_events_match
                i5_a_retry_by_key_is_known_although_its_own_events_match
                i5_a_confirmed_decision_is_remembered_by_its_key
                i5_ids_are_judged_before_conditions
                i5_of_one_conditional_write_sent_by_many_at_once_one_is_written
            }
            contended {
                i4_an_event_that_does_not_match_makes_no_condition_fail
                i4_of_64_writers_under_one_condition_exactly_one_wins
                i4_of_writers_under_overlapping_conditions_exactly_one_wins
                i4_writers_under_disjoint_conditions_do_not_disturb_each_other
                i4_of_many_that_take_the_same_few_names_at_once_each_name_has_one_owner
                i4_those_that_lose_try_again_and_no_number_is_given_twice
                i4_a_tag_written_long_ago_is_not_forgotten
                i4_what_was_not_written_is_not_seen
                i4_an_audit_of_the_log_finds_no_violation
            }
            aggregates {
                g4_a_handler_sees_id_version_and_time
                g4_apply_sees_the_envelope
                g5_a_receipt_carries_state_version_position_and_time
                g5_a_rejection_writes_nothing
                g5_a_conflict_is_decided_again
                g5_a_rejection_from_memory_is_confirmed
                g5_a_decision_for_nothing_is_confirmed
                g5_concurrent_commands_all_take_effect_once
                g5_tries_are_bounded
                g5_a_dropped_command_is_whole_or_absent
                g6_a_key_executes_a_command_once
                g6_a_command_without_events_is_remembered
                g6_a_known_command_is_not_rejected
                g6_a_key_of_another_command_is_refused
                g6_rejections_are_not_remembered
                g7_a_snapshot_is_the_state_of_the_committed_version
                e4_a_useless_snapshot_is_left_aside_and_counted
                e4_a_failed_save_never_fails_a_command
                g8_provenance_travels_in_metadata
                g2_an_unknown_event_is_a_typed_error
                g1_what_cannot_be_read_again_is_never_written
                g7_the_state_after_a_command_equals_its_replay
                a2_a_command_can_insist_on_a_version
                g4_an_empty_id_is_refused
                c7_an_aggregate_is_loaded_as_of_the_past
                g5_a_long_stream_is_folded_to_its_end
            }
            keys {
                g6_a_key_says_which_command_it_belongs_to
                g6_what_serde_tells_apart_is_another_command
                g6_order_and_width_make_no_other_command
                g6_a_command_without_a_fingerprint_is_refused
                g8_the_log_says_which_command_wrote_an_event
                g6_known_commands_are_answered_in_any_order
            }
            boundaries {
                i6_a_decision_reads_aggregates_and_views_and_its_event_names_its_stream
                i6_a_view_is_folded_from_what_its_query_finds
                i7_an_aggregate_that_was_only_read_is_checked
                i7_a_decision_over_two_aggregates_writes_all_or_nothing
                i7_an_aggregate_named_twice_is_one
                i6_all_states_are_as_of_one_position
                i5_a_key_repeated_returns_the_first_outcome
                i6_provenance_travels_and_rejections_are_not_remembered
                i6_tries_are_bounded_and_a_conflict_says_what_changed
                i4_an_event_that_does_not_match_is_no_conflict
                i6_a_decision_can_insist_on_a_version
                i6_an_event_in_the_wrong_stream_is_refused
            }
            deciders {
                i6_many_deciders_never_overbook_and_every_seat_is_taken
                i6_deciders_without_a_common_memory_never_overbook
                i6_a_rule_across_streams_holds_under_concurrency
                i6_write_skew_between_views_is_impossible
                i7_transfers_at_the_same_time_conserve_money
                i6_a_decision_that_is_dropped_is_whole_or_absent
                i6_kept_decisions_hold_up_nobody
                i6_what_panics_is_never_written_and_harms_nobody
                i6_an_event_that_turns_out_unfoldable_is_said_to_be_written
                i6_only_what_is_new_is_read_and_folded
                i6_decisions_and_commands_share_what_they_have_read
                i6_a_rejection_from_memory_is_confirmed
                i6_a_rejection_from_a_fresh_load_is_final
            }
            turns {
                g5_a_kept_command_holds_up_nobody
                g5_any_number_of_kept_commands_hold_up_nobody
                g5_others_finish_what_a_kept_command_began
                g5_commands_of_one_task_take_turns
            }
            panics {
                g5_a_panic_in_a_handler_leaves_the_aggregate_usable
                g1_what_cannot_be_folded_is_never_written
                g4_a_stored_event_that_cannot_be_folded_is_the_same_error_each_time
                g4_a_state_in_memory_is_not_spoiled_by_an_event_that_cannot_be_folded
                g5_an_event_that_turns_out_unfoldable_is_said_to_be_written
                e4_a_panic_in_saving_never_fails_a_command
            }
            saving {
                e4_commands_and_snapshots_need_no_runtime
                e4_a_store_that_can_save_no_snapshot_is_asked_once
                e4_a_store_that_fails_to_save_is_asked_less_and_less_often
                g5_a_clone_has_the_same_settings
                a2_a_refused_expectation_says_how_often_it_was_tried
                g5_a_state_that_was_behind_is_brought_up_to_date
            }
            folding {
                g5_a_state_is_never_folded_from_a_part_of_its_events
                g5_a_state_in_memory_is_never_brought_up_to_date_by_a_part
                g7_a_snapshot_older_than_the_truncation_is_refused
            }
            projections {
                h1_each_event_takes_effect_exactly_once
                h2_catching_up_goes_over_into_live
                h2_catching_up_can_be_all_there_is
                h3_a_refusal_stops_before_the_event
                h3_an_unreadable_event_stops_right_before_it
                h3_a_panic_is_a_failure
                h5_a_commands_position_can_be_awaited
                h6_a_stopped_projection_goes_on_where_it_was
                h6_closing_the_store_ends_a_projection
                h2_a_projection_can_have_another_name_and_a_filter
                i2_projections_and_typed_reads_take_a_query
                h7_unwanted_events_move_the_checkpoint
                h2_a_projection_asks_for_the_old_names_of_its_events
                h2_a_runner_notices_that_it_was_taken_over
            }
            panicking {
                h3_a_panic_while_decoding_stops_right_before_the_event
                h3_a_panic_while_saving_a_state_is_a_failure
                h3_a_panic_while_reading_a_snapshot_folds_from_the_beginning
                h3_whatever_panics_is_a_failure
                h3_a_panic_at_either_end_is_a_failure
                h3_a_reader_that_panics_harms_nobody
            }
            partitions {
                h11_partitions_apply_each_event_once_and_in_order
                h11_the_number_of_partitions_can_change
                h11_partitions_of_another_number_take_over
                h11_a_parked_key_stays_with_its_partition
                h11_what_partitions_cannot_do_is_refused
            }
            passes {
                h4_rebuilds_share_one_reading_of_the_log
                h4_a_rebuild_that_is_kept_up_keeps_no_other_up
            }
            rebuilding {
                h4_a_state_is_replaced_at_once
                h16_a_changed_version_is_refused
                h16_a_changed_version_builds_its_state_anew
            }
            state_models {
                h3_readers_never_see_the_past
                h3_a_state_that_was_not_touched_is_not_folded_again
                h3_a_batch_is_taken_back_whenever_the_state_was_saved
            }
            strange_models {
                h3_the_event_that_keeps_a_batch_from_being_committed_is_found
                h3_a_model_that_forgets_is_brought_back
                h1_what_was_committed_although_it_failed_takes_effect_once
                h7_what_nobody_wants_costs_no_transaction
                h7_a_failure_writes_what_was_passed_over
            }
            executors {
                h2_a_start_without_a_runtime_is_refused
                h2_catching_up_needs_no_runtime
                h5_waiting_needs_no_runtime_and_no_timer
                i6_a_decision_runs_on_any_executor
                h3_a_projection_whose_runtime_ended_has_failed
                h6_however_often_it_is_stopped_the_same_is_returned
            }
            reactors {
                h13_every_event_has_its_effect_once
                h13_keys_are_ordered_and_overlap_up_to_a_bound
                h13_a_reactor_can_have_keys_of_its_own
                h13_a_crash_at_any_step_repeats_effects_under_their_keys
                h13_an_outage_repeats_no_effect
                h13_the_checkpoint_covers_only_what_is_finished
                h13_a_failing_effect_is_tried_again_alone
                h13_after_the_last_attempt_the_reactor_stops
                h13_a_parked_key_queues_and_is_retried_in_order
                h13_an_undecodable_event_is_parked
                h13_a_reset_repeats_no_effect_without_the_word
                h13_a_reactor_that_hangs_is_bounded_by_its_timeout
                h13_a_stop_finishes_what_is_under_way
                h13_a_reactor_can_start_at_the_present
                h13_of_two_owners_one_stops
                h13_a_stand_by_takes_over
                h13_the_present_of_an_empty_log_is_remembered
                h13_ten_writers_and_twenty_reactors
            }
            processes {
                h14_events_become_commands
                h14_keys_and_provenance_derive_from_the_event
                h14_rejections_are_handled
                h14_a_crash_at_any_step_loses_and_repeats_nothing
                h14_two_owners_do_everything_once
                h14_timeouts_are_handled_once_and_in_order
                h14_a_cancelled_timeout_is_never_handled
                h14_a_timeout_comes_before_later_events
                h14_a_running_process_is_woken_by_the_clock
                h14_a_timeout_that_fails_delays_no_other
                h14_a_reset_repeats_nothing
                h14_a_completed_instance_ignores_events
                h14_a_poison_instance_is_parked
                h14_a_process_that_decides_otherwise_sends_nothing
                h14_what_is_no_step_is_refused
                h14_a_process_uses_the_repository_it_is_given
            }
        }
    };
}

/// Generates a test for each fact about stores that outlive their handles; the fixture must be
/// [`Durable`](crate::Durable).
///
/// See [`conformance!`](crate::conformance!); both can be used in the same module.
#[macro_export]
macro_rules! conformance_durable {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            durable {
                a1_after_reopening_every_event_is_there_as_it_was
                a2_after_reopening_expectations_are_judged_as_before
                a7_positions_go_on_over_many_reopenings
                a8_after_reopening_time_does_not_run_backwards
                a12_after_reopening_a_command_is_remembered
                b1_after_reopening_derived_ids_are_the_same
                b2_after_reopening_a_retry_is_known
                d1_after_reopening_a_watch_goes_on_after_its_last_place
                e1_after_reopening_snapshots_are_there
                f1_after_reopening_the_store_has_the_same_id
                f2_what_was_acknowledged_is_there_after_reopening
                cells_are_there_after_reopening
            }
            aggregates {
                g6_keys_and_snapshots_survive_a_reopening
            }
            tags {
                i1_after_reopening_tags_are_there
            }
            conditions {
                i3_after_reopening_conditions_are_judged_as_before
            }
            projections {
                h1_a_projection_survives_a_reopening
            }
            reactors {
                h13_a_reactor_survives_a_reopening
            }
            processes {
                h14_timeouts_survive_a_reopening
            }
            passes {
                h4_rebuilds_go_on_together_after_a_reopening
            }
            rebuilding {
                h4_a_rebuild_survives_a_reopening
            }
        }
    };
}

/// Generates a test for each fact about stores that several processes share; the fixture must be
/// [`Shared`](crate::Shared).
///
/// See [`conformance!`](crate::conformance!); both can be used in the same module.
#[macro_export]
macro_rules! conformance_shared {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            shared {
                a2_the_writes_of_another_handle_are_judged
                a7_positions_are_in_commit_order_over_all_handles
                a8_time_never_runs_backwards_over_all_handles
                a9_of_many_writers_of_one_version_one_wins_over_all_handles
                a9_writers_of_all_handles_that_expect_nothing_succeed
                a12_a_command_of_another_handle_is_known
                b2_a_retry_through_another_handle_is_known
                c1_reads_see_the_writes_of_another_handle_at_once
                d3_the_writes_of_another_handle_are_noticed
                d1_a_watch_begins_at_the_present_of_all_handles
                d1_no_gap_and_no_duplicate_while_several_handles_write
                d5_a_flood_by_another_handle_is_watched_whole
                e2_snapshots_are_shared_and_only_grow
                f1_all_handles_are_the_same_store
                f1_a_cell_is_won_by_one_of_all_handles
                f3_closing_one_handle_leaves_the_others_open
            }
            aggregates {
                g5_repositories_of_two_handles_share_an_aggregate
            }
            contended {
                i4_what_another_handle_wrote_makes_a_condition_fail
                i4_of_writers_of_all_handles_under_one_condition_one_wins
                i4_an_audit_of_the_log_of_all_handles_finds_no_violation
            }
            deciders {
                i6_deciders_of_several_handles_never_overbook
            }
            projections {
                h2_a_projection_sees_what_another_handle_writes
            }
            reactors {
                h13_of_two_processes_one_stops
            }
            processes {
                h14_two_processes_do_everything_once
            }
        }
    };
}

/// Generates a test for each fact about consumers that depends on the read model; the fixture must be a
/// [`Ledger`](crate::ledger::Ledger).
///
/// See [`conformance!`](crate::conformance!); both can be used in the same module.
#[macro_export]
macro_rules! conformance_consumers {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            batches {
                h1_a_batch_equals_its_events_one_by_one
                h1_a_failure_at_every_call_of_a_batch_changes_nothing
                h8_the_culprit_of_a_batch_is_found_wherever_it_is
                h8_a_batch_that_fails_for_no_event_is_applied_one_by_one
                h9_parked_events_are_left_out_of_batches
            }
            failing {
                h1_a_failure_or_death_at_every_call_changes_nothing
                h1_whatever_happens_each_event_takes_effect_once
                h3_the_event_that_fails_is_found_wherever_it_is
                h3_every_event_may_fail_and_be_tried_again
                h3_a_model_that_is_down_is_waited_for
                h3_a_consumer_can_start_while_its_model_is_down
                h6_closing_the_store_in_the_middle_ends_a_consumer
                h8_failures_have_a_category
                h8_what_cannot_be_decoded_is_parked_and_can_be_dropped
                h9_a_parked_key_keeps_its_order_and_others_go_on
                h9_poison_in_many_keys_stops_nobody_else
                h9_beyond_the_bound_of_parked_events_the_consumer_stops
                h9_the_key_can_be_another_than_the_stream
            }
            consumers {
                h5_the_status_is_in_the_store
                h10_a_stand_by_takes_over_when_the_owner_stops
                h10_a_frozen_owner_commits_nothing
                h10_the_term_is_judged_where_the_checkpoint_is
                h10_without_a_lease_one_of_two_is_told
                h10_owners_come_and_go
                h12_only_legal_transitions_happen
                h12_a_consumer_starts_from_the_beginning_the_present_or_a_position
                h12_a_running_consumer_can_be_reset_and_moved
                h12_wishes_from_elsewhere_are_carried_out_once
                h17_a_set_is_stopped_within_a_deadline_that_names_the_late
            }
        }
    };
}

/// Generates a test for each fact about consumers that are watched from other processes; the fixture must be a
/// [`Ledger`](crate::ledger::Ledger) and [`Shared`](crate::Shared).
#[macro_export]
macro_rules! conformance_consumers_shared {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            consumers {
                h5_a_position_can_be_awaited_from_another_process
            }
        }
    };
}

/// Generates a test for each fact about inline projections, for engines that return
/// [`Engine::commit_hooks`](es_framework::Engine::commit_hooks).
///
/// See [`conformance!`](crate::conformance!); both can be used in the same module.
#[macro_export]
macro_rules! conformance_inline {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            inline {
                h15_an_inline_projection_can_be_read_when_the_append_returns
                h15_an_append_that_it_refuses_writes_nothing
                h15_a_refused_append_takes_no_other_down
                h15_what_one_of_several_refuses_is_taken_back_from_all
                h15_turning_it_asynchronous_and_back_loses_and_repeats_nothing
                h15_a_retry_that_is_known_does_not_take_effect_again
                h15_what_cannot_be_inline_says_so_and_leaves_appends_alone
                h15_readers_see_whole_appends_that_are_never_taken_back
            }
        }
    };
}

/// Generates a test for each fact about inline projections of stores that outlive their handles; the fixture must be
/// [`Durable`](crate::Durable).
#[macro_export]
macro_rules! conformance_inline_durable {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            inline {
                h15_it_goes_on_after_reopening
            }
        }
    };
}

/// Generates a test for each fact about inline projections of stores that several processes share; the fixture must be
/// [`Shared`](crate::Shared).
#[macro_export]
macro_rules! conformance_inline_shared {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            inline {
                h15_events_of_another_handle_without_it_are_applied_first
            }
        }
    };
}

/// Generates a test for each fact about stores that tools can inspect, for engines that implement
/// [`Engine::inspect`](es_framework::Engine::inspect).
///
/// See [`conformance!`](crate::conformance!); both can be used in the same module.
#[macro_export]
macro_rules! conformance_inspected {
    ($fixture:expr) => {
        $crate::__tests! {
            $fixture;
            inspected {
                inspect_counts_what_is_there
                inspect_lists_streams_by_prefix_in_either_order
                inspect_lists_types_with_their_shapes
                inspect_lists_cells_snapshots_and_commands
                inspect_finds_events_by_id_in_every_stream
                inspect_shows_the_tags_of_an_event
                inspect_verifies_a_whole_store
                inspect_refuses_a_cursor_that_is_none
            }
        }
    };
}

/// Generates a test for each listed fact.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($fixture:expr; $($module:ident { $($fact:ident)* })*) => {
        $($(
            #[test]
            fn $fact() {
                $crate::run(async {
                    let fixture = $fixture;
                    $crate::$module::$fact(&fixture).await;
                });
            }
        )*)*
    };
}
