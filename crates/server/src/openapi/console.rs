//! The description of logging in and out, which browsers do.

use super::{Operation, parameter};
use crate::answer::Code;
use serde_json::{Value, json};

pub(super) fn operations() -> Vec<Operation> {
    let page = |description: &str| json!({ "description": description, "content": { "text/html": { "schema": { "type": "string" } } } });
    let elsewhere =
        |description: &str| json!({ "description": description, "headers": { "Location": { "schema": { "type": "string" } } } });
    let operation = |method, path, id, summary, answers: Vec<(&'static str, Value)>| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers,
        codes: &[],
    };
    let text = |name, description| parameter("query", name, description, json!({ "type": "string" }));
    vec![
        operation(
            "get",
            "/console",
            "console",
            "Who is logged in, and what they may do",
            vec![("200", page("The page.")), ("303", elsewhere("To the log-in."))],
        ),
        Operation {
            parameters: vec![text("return", "Path to go to afterwards.")],
            codes: &[Code::InvalidParameter, Code::NotFound, Code::Busy],
            ..operation("get", "/login", "logIn", "Sends a browser to the identity provider", vec![("303", elsewhere("To the provider."))])
        },
        Operation {
            parameters: vec![
                text("state", "Which log-in it is."),
                text("code", "What the provider gives."),
                text("error", "Why it gives nothing."),
                text("error_description", "The same in words."),
            ],
            ..operation(
                "get",
                "/login/callback",
                "loggedIn",
                "Receives a browser from the identity provider",
                vec![("303", elsewhere("To the console, with a session.")), ("401", page("Why not."))],
            )
        },
        Operation {
            codes: &[Code::CrossOrigin],
            ..operation("post", "/logout", "logOut", "Ends a session of the console", vec![("200", page("Done."))])
        },
    ]
}
