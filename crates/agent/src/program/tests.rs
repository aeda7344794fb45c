//! Streams of our own making, as the programs write them.

use loom_client::Job;
use loom_protocol::work::CostSource;
use proptest::prelude::*;
use serde_json::json;

use super::facts::ResultEvent;
use super::listener::Listener;
use super::session_place::SessionPlace;
use super::*;
use crate::lines::Splitter;
use crate::testing::job;

mod gemini;

const ALL: [Program; 4] = [
    Program::Claude,
    Program::Codex,
    Program::Gemini,
    Program::Copilot,
];

/// Hears a stream in pieces of so many bytes; gives the listener, and the lines that are no events.
fn hear(program: Program, stream: &[u8], pieces: usize) -> (Listener, Vec<String>) {
    let job: Job = job();
    let mut listener = Listener::new(program.adapter(), SessionPlace::sample());
    let mut splitter = Splitter::new(1_000);
    let mut texts = Vec::new();
    for piece in stream.chunks(pieces) {
        splitter.feed(piece, |line| texts.extend(listener.take(&line, &job)));
    }
    splitter.finish(|line| texts.extend(listener.take(&line, &job)));
    (listener, texts)
}

/// Each event on a line.
fn lines(events: &[Value]) -> Vec<u8> {
    let mut stream = Vec::new();
    for event in events {
        stream.extend(event.to_string().as_bytes());
        stream.push(b'\n');
    }
    stream
}

fn facts(program: Program, events: &[Value]) -> Facts {
    hear(program, &lines(events), 64 * 1024).0.facts
}

fn failure(facts: &Facts) -> (&str, &str) {
    match &facts.result {
        Some(ResultEvent::Bad { code, message }) => (code, message),
        other => panic!("not failed: {other:?}"),
    }
}

fn of_claude(result: Value) -> Facts {
    let usage = json!({"input_tokens": 3, "output_tokens": 7, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100});
    facts(
        Program::Claude,
        &[
            json!({"type": "system", "subtype": "init", "session_id": "s-1", "cwd": "/w", "model": "m"}),
            json!({"type": "assistant", "session_id": "s-1", "message": {"id": "m1", "usage": usage, "content": [{"type": "text", "text": "I look."}]}}),
            json!({"type": "assistant", "session_id": "s-1", "message": {"id": "m1", "usage": usage, "content": [{"type": "tool_use", "name": "Edit", "input": {"file_path": "/w/src/a.ts"}}]}}),
            json!({"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning", "overageStatus": "rejected", "resetsAt": 1_785_340_800}}),
            json!({"type": "something_new", "deep": [[{}]]}),
            result,
        ],
    )
}

#[test]
fn claude_tells_answer_cost_session_and_what_it_does() {
    let facts = of_claude(
        json!({"type": "result", "subtype": "success", "is_error": false, "result": "All done.",
        "structured_output": {"n": 1}, "total_cost_usd": 0.42, "session_id": "s-1", "terminal_reason": "completed",
        "usage": {"input_tokens": 3, "output_tokens": 9, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100},
        "permission_denials": [{"tool_name": "Bash"}, {"tool_name": "Bash"}]}),
    );
    assert_eq!(facts.result, Some(ResultEvent::Good));
    assert_eq!(facts.answer.as_deref(), Some("All done."));
    assert_eq!(facts.structured, Some(json!({"n": 1})));
    assert_eq!(facts.session.as_deref(), Some("s-1"));
    assert_eq!(facts.denied, ["Bash"]);
    assert_eq!(facts.limit, None, "a warning is no limit");
    let usage = facts.spent.usage().unwrap();
    assert_eq!((usage.tokens, usage.cost_usd), (Some(132), Some(0.42)));
    assert_eq!(usage.cost_source, Some(CostSource::Reported));
    assert_eq!(usage.model.as_deref(), Some("m"));
    assert_eq!(usage.cache_read_tokens, Some(100));
}

#[test]
fn claude_fails_by_any_of_three_words() {
    for (result, code, message) in [
        (
            json!({"type": "result", "subtype": "success", "is_error": true, "result": "API Error: 529 Overloaded"}),
            "is-error",
            "API Error: 529 Overloaded",
        ),
        (
            json!({"type": "result", "subtype": "error_max_turns", "is_error": false}),
            "error_max_turns",
            "it ended with error_max_turns",
        ),
        (
            json!({"type": "result", "subtype": "success", "is_error": false, "terminal_reason": "aborted", "result": "half"}),
            "aborted",
            "half",
        ),
        (
            json!({"type": "result", "subtype": "error_during_execution", "errors": ["one", "two"]}),
            "error_during_execution",
            "one\ntwo",
        ),
    ] {
        let facts = of_claude(result);
        assert_eq!(failure(&facts), (code, message));
        // What it used is known all the same.
        assert_eq!(facts.spent.usage().unwrap().tokens, Some(130));
    }
}

#[test]
fn claude_meets_a_limit_only_where_it_is_rejected() {
    let limit = |status: &str| json!({"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": 1_785_340_800, "rateLimitType": "five_hour"}});
    let met = facts(Program::Claude, &[limit("rejected")]).limit.unwrap();
    assert_eq!(
        (met.class, met.said.as_str()),
        (Class::Limit, "the five_hour limit is met")
    );
    assert_eq!(met.until.unwrap().to_string(), "2026-07-29T16:00:00.000Z");
    assert_eq!(
        facts(Program::Claude, &[limit("rejected"), limit("allowed")]).limit,
        None
    );
}

#[test]
fn codex_answers_by_its_last_message_and_not_by_its_last_line() {
    let facts = facts(
        Program::Codex,
        &[
            json!({"type": "thread.started", "thread_id": "t-1"}),
            json!({"type": "turn.started"}),
            json!({"type": "error", "message": "stream disconnected, reconnecting 1/5"}),
            json!({"type": "item.completed", "item": {"type": "agent_message", "text": "I begin."}}),
            json!({"type": "item.started", "item": {"type": "command_execution", "command": "bash -lc 'npm test'"}}),
            json!({"type": "item.completed", "item": {"type": "agent_message", "text": "It works."}}),
            json!({"type": "turn.completed", "usage": {"input_tokens": 1_000, "cached_input_tokens": 800, "output_tokens": 50}}),
        ],
    );
    assert_eq!(
        facts.result,
        Some(ResultEvent::Good),
        "a reconnect is harmless"
    );
    assert_eq!(facts.answer.as_deref(), Some("It works."));
    assert_eq!(facts.session.as_deref(), Some("t-1"));
    let usage = facts.spent.usage().unwrap();
    assert_eq!((usage.tokens, usage.cost_usd), (Some(1_050), None));
}

#[test]
fn codex_fails_by_its_turn_and_an_empty_turn_is_a_limit() {
    let failed = facts(
        Program::Codex,
        &[json!({"type": "turn.failed", "error": {"message": "You've hit your usage limit."}})],
    );
    assert_eq!(
        failure(&failed),
        ("turn-failed", "You've hit your usage limit.")
    );
    let empty = facts(
        Program::Codex,
        &[json!({"type": "turn.completed", "usage": {"input_tokens": 0, "output_tokens": 0}})],
    );
    assert_eq!(failure(&empty).0, "empty-turn");
    assert_eq!(empty.limit.unwrap().class, Class::Limit);
}

#[test]
fn what_an_item_says_becomes_no_flag() {
    let launcher = |flag: &str| {
        let extra = vec!["--verbose".to_owned(), flag.to_owned()];
        run::Launcher::new(Program::Codex, Power::default(), extra, 2, &[])
    };
    for refused in [
        "{label.model}",
        "{description}",
        "x{id}",
        "config={id}",
        "--{label.flag}",
        "--x{id}=1",
        "-m{id}",
    ] {
        let error = launcher(refused).unwrap_err();
        assert!(error.contains("could be a flag"), "{refused}: {error}");
    }
    for taken in [
        "--model={label.model}",
        "a word",
        "--model={{id}}",
        "{{id}}",
    ] {
        launcher(taken).unwrap();
    }
}

#[test]
fn copilot_ends_by_its_result_and_fails_by_an_error_of_its_session() {
    let message = json!({"type": "assistant.message", "data": {"content": "Done."}});
    let good = facts(
        Program::Copilot,
        &[
            json!({"type": "session.error", "data": {"errorType": "query", "message": "a hiccup"}}),
            json!({"type": "tool.execution_start", "data": {"toolCallId": "1", "toolName": "bash", "arguments": {"command": "curl x"}}}),
            json!({"type": "tool.execution_complete", "data": {"toolCallId": "1", "success": false, "error": {"code": "denied", "message": "Permission denied"}}}),
            message,
            json!({"type": "assistant.message", "data": {"content": ""}}),
            json!({"type": "result", "sessionId": "c-1", "exitCode": 0, "usage": {"premiumRequests": 1}}),
        ],
    );
    assert_eq!(good.result, Some(ResultEvent::Good));
    assert_eq!(
        (good.answer.as_deref(), good.session.as_deref()),
        (Some("Done."), Some("c-1"))
    );
    assert_eq!(good.denied, ["bash"]);
    assert!(good.spent.usage().is_none());
    let limit = facts(
        Program::Copilot,
        &[
            json!({"type": "session.error", "data": {"errorType": "rate_limit", "message": "Please try again in 2 hours"}}),
            json!({"type": "result", "sessionId": "c-1", "exitCode": 1}),
        ],
    );
    assert_eq!(
        failure(&limit),
        ("session-error", "Please try again in 2 hours")
    );
    assert!(limit.limit.is_some());
}

/// A stream with a good result of each program.
fn good_stream(program: Program, answer: &str) -> Vec<Value> {
    match program {
        Program::Claude => vec![
            json!({"type": "result", "padding": "x".repeat(5_000), "subtype": "success", "is_error": false, "result": answer}),
        ],
        Program::Codex => vec![
            json!({"type": "item.completed", "item": {"output": "x".repeat(5_000), "type": "agent_message", "text": answer}}),
            json!({"type": "turn.completed", "usage": {"output_tokens": 1}}),
        ],
        Program::Gemini => vec![
            json!({"type": "message", "role": "assistant", "padding": "x".repeat(5_000), "content": answer}),
            json!({"type": "result", "status": "success"}),
        ],
        Program::Copilot => vec![
            json!({"type": "assistant.message", "data": {"padding": "x".repeat(5_000), "content": answer}}),
            json!({"type": "result", "exitCode": 0}),
        ],
    }
}

#[test]
fn a_line_of_megabytes_is_an_event_and_its_end_is_not_lost() {
    for program in ALL {
        let answer = format!("{} the end", "y".repeat(3_000_000));
        let facts = facts(program, &good_stream(program, &answer));
        assert_eq!(facts.result, Some(ResultEvent::Good), "{program:?}");
        let answer = facts.answer.unwrap();
        assert!(
            answer.ends_with("y the end") && answer.len() < 300_000,
            "{program:?}"
        );
    }
}

#[test]
fn half_a_line_is_no_result_and_stands_in_the_text() {
    for program in ALL {
        let stream = lines(&good_stream(program, "done"));
        let half = &stream[..stream.len() - 10];
        let (listener, texts) = hear(program, half, 100);
        assert_eq!(listener.facts.result, None, "{program:?}");
        assert_eq!(texts.len(), 1, "{program:?}");
    }
}

#[test]
fn flags_that_are_ours_stand_in_no_program_twice_and_values_are_bound_to_them() {
    let power = Power::new(power::Allow::Test, vec!["just check".into()]).unwrap();
    for program in ALL {
        let adapter = program.adapter();
        let extra = ["--model=a b".to_owned()];
        let line = adapter.command_line(&Launch {
            power: &power,
            session: "the-session",
            extra: &extra,
        });
        assert!(line.contains(&extra[0]), "{line:?}");
        assert_eq!(
            line.iter().any(|word| word == "--session-id=the-session"),
            adapter.names_session()
        );
        let is_flag = |word: &&String| word.starts_with('-');
        let ours = line
            .iter()
            .filter(is_flag)
            .filter(|word| **word != extra[0]);
        for word in ours {
            let name = word.split('=').next().unwrap();
            assert!(
                adapter.own_flags().contains(&name),
                "{program:?}: {name} may be given twice"
            );
        }
        let runs = line
            .iter()
            .any(|word| word.contains("just check") && word.contains("git diff"));
        let each = line.iter().any(|word| word.contains("shell(just check:*)"));
        assert_eq!(runs || each, program != Program::Codex, "{line:?}");
    }
}

#[test]
fn power_is_said_in_the_words_of_each_program() {
    for (program, edit, all) in [
        (
            Program::Claude,
            "--permission-mode=acceptEdits",
            "--permission-mode=bypassPermissions",
        ),
        (
            Program::Codex,
            "--sandbox=workspace-write",
            "--sandbox=danger-full-access",
        ),
        (
            Program::Gemini,
            "--approval-mode=auto_edit",
            "--approval-mode=yolo",
        ),
        (Program::Copilot, "--allow-tool=write", "--allow-all"),
    ] {
        for (allow, word) in [(power::Allow::Edit, edit), (power::Allow::All, all)] {
            let power = Power::new(allow, Vec::new()).unwrap();
            let line = program.adapter().command_line(&Launch {
                power: &power,
                session: "s",
                extra: &[],
            });
            assert!(line.iter().any(|given| given == word), "{line:?}");
            assert!(
                !line.iter().any(|given| given.contains("git diff")),
                "{line:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No bytes make an adapter panic, what is heard does not depend on how it arrives, and nothing that comes before
    /// the result hides it.
    #[test]
    fn any_bytes_before_the_result_hide_nothing(
        noise in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3_000),
            prop::collection::vec(like_an_event(), 0..8).prop_map(|events| lines(&events)),
        ],
        pieces in 1_usize..3_000,
    ) {
        for program in ALL {
            let mut stream = noise.clone();
            stream.push(b'\n');
            stream.extend(lines(&good_stream(program, "the answer")));
            let (listener, texts) = hear(program, &stream, pieces);
            let (all, same_texts) = hear(program, &stream, stream.len());
            prop_assert_eq!(&listener.facts.answer, &all.facts.answer);
            prop_assert_eq!(texts, same_texts);
            prop_assert!(listener.facts.result.is_some());
            prop_assert!(all.facts.answer.is_some_and(|answer| answer.ends_with("the answer")));
            for ended in [Ended::Code(0), Ended::Code(1), Ended::Signal, Ended::TimedOut] {
                program.adapter().verdict(&listener.facts, ended, None, Some(false));
            }
        }
    }
}

/// Objects with the words of events in odd places.
fn like_an_event() -> impl Strategy<Value = Value> {
    let words = "(type|system|assistant|message|item|result|usage|data|error|content|status|stats|text|tool_use|thread.started|item.completed|turn.failed|session.error|session_id|rate_limit_event|rate_limit_info|rejected|init)";
    let leaf = prop_oneof![
        words.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        any::<f64>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(words, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop::collection::hash_map(words, value, 1..6)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}
