//! Streams of Gemini CLI, and what it has in common with Copilot CLI.

use super::*;

#[test]
fn gemini_answers_in_parts_and_tells_what_was_denied() {
    let events = [
        json!({"type": "init", "session_id": "g-1", "model": "m"}),
        json!({"type": "message", "role": "user", "content": "do it"}),
        json!({"type": "message", "role": "assistant", "content": "Let me see.", "delta": true}),
        json!({"type": "tool_use", "tool_name": "run_shell_command", "tool_id": "1", "parameters": {"command": "rm x"}}),
        json!({"type": "tool_result", "tool_id": "1", "status": "error", "error": {"type": "denied", "message": "Tool execution denied by policy"}}),
        json!({"type": "tool_use", "tool_name": "read_file", "tool_id": "2", "parameters": {"absolute_path": "/w/x"}}),
        json!({"type": "tool_result", "tool_id": "2", "status": "error", "output": "File not found"}),
        json!({"type": "message", "role": "assistant", "content": "It is ", "delta": true}),
        json!({"type": "message", "role": "assistant", "content": "done.", "delta": true}),
        json!({"type": "result", "status": "success", "stats": {"total_tokens": 130, "input_tokens": 100, "output_tokens": 20, "cached": 40}}),
    ];
    let good = facts(Program::Gemini, &events);
    assert_eq!(good.result, Some(ResultEvent::Good));
    assert_eq!(good.answer.as_deref(), Some("It is done."));
    assert_eq!(good.session.as_deref(), Some("g-1"));
    assert_eq!(good.denied, ["run_shell_command"]);
    assert_eq!(good.spent.usage().unwrap().tokens, Some(130));
    let bad = facts(
        Program::Gemini,
        &[
            json!({"type": "result", "status": "error", "error": {"type": "QuotaError", "message": "Quota exceeded"}}),
        ],
    );
    assert_eq!(failure(&bad), ("QuotaError", "Quota exceeded"));
}

#[test]
fn a_stray_line_of_json_is_no_result_of_gemini() {
    let facts = facts(
        Program::Gemini,
        &[
            json!({"type": "init", "session_id": "g-1"}),
            json!({"response": "ok"}),
        ],
    );
    assert_eq!((facts.result, facts.answer), (None, None));
}

#[test]
fn the_last_words_of_gemini_stay_until_it_says_more() {
    let part = |content: &str| json!({"type": "message", "role": "assistant", "content": content, "delta": true});
    let tool =
        json!({"type": "tool_use", "tool_name": "read_file", "tool_id": "1", "parameters": {}});
    let mut events = vec![part("It is "), part("done."), tool.clone(), part(""), tool];
    let answer = |events: &[Value]| facts(Program::Gemini, events).answer.unwrap();
    assert_eq!(answer(&events), "It is done.");
    events.extend([part("All "), part("is well.")]);
    assert_eq!(answer(&events), "All is well.");
}

#[test]
fn a_tool_that_ran_and_speaks_of_permissions_was_not_denied() {
    let of_gemini = |said: Value| {
        let mut end = json!({"type": "tool_result", "tool_id": "1", "status": "error"});
        end.as_object_mut()
            .unwrap()
            .extend(said.as_object().unwrap().clone());
        let call = json!({"type": "tool_use", "tool_name": "run_shell_command", "tool_id": "1"});
        facts(Program::Gemini, &[call, end]).denied
    };
    let of_copilot = |error: Value| {
        let end = json!({"toolCallId": "1", "toolName": "bash", "success": false, "error": error});
        let end = json!({"type": "tool.execution_complete", "data": end});
        facts(Program::Copilot, &[end]).denied
    };
    let said = "cat: /etc/shadow: Permission denied";
    assert!(of_gemini(json!({"output": said})).is_empty());
    assert!(
        of_gemini(json!({"error": {"type": "shell_execute_error", "message": said}})).is_empty()
    );
    assert!(of_copilot(json!({"code": "failure", "message": said})).is_empty());
    let policy = json!({"error": {"type": "policy_violation", "message": "no"}, "output": "no"});
    assert_eq!(of_gemini(policy), ["run_shell_command"]);
    let sentence = json!({"error": {"message": "Tool execution denied by policy."}});
    assert_eq!(of_gemini(sentence), ["run_shell_command"]);
    assert_eq!(of_copilot(json!({"code": "rejected"})), ["bash"]);
}

#[test]
fn exit_codes_of_gemini_say_what_no_event_says() {
    let (nothing, adapter) = (Facts::default(), Program::Gemini.adapter());
    let of = |code| adapter.verdict(&nothing, Ended::Code(code), None, None);
    assert_eq!(of(41), Verdict::Unspent(Class::Account));
    assert_eq!(of(55), Verdict::NoResult);
    assert_eq!(adapter.exit_meaning(55).unwrap().code, "untrusted");
    let good = facts(
        Program::Gemini,
        &[json!({"type": "result", "status": "success"})],
    );
    let verdict = adapter.verdict(&good, Ended::Code(41), None, None);
    assert_eq!(verdict, Verdict::Done, "the result counts first");
}
