// SPDX-License-Identifier: GPL-2.0

//! Headings, links and commands in Markdown.

/// Returns the lines of `text` outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the anchors of the headings of `text`, as the usual viewers make them: lower case, words
/// joined by `-`.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                _ => c.is_alphanumeric().then_some(c),
            });
            kept.collect()
        })
        .collect()
}

/// Returns the targets of the links and images of `text`.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A link may span two lines.
    let text = prose(text).collect::<Vec<_>>().join("\n");
    for part in text.split("](").skip(1) {
        if let Some((target, _)) = part.split_once(')') {
            found.push(target.to_owned());
        }
    }
    found
}

/// Returns the commands of the fenced blocks of `text` with the info string `console`: the lines that begin with
/// `$ `, without that and without the comment after them.
pub fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            inside = info == "console";
        } else if inside {
            if let Some(command) = line.trim_start().strip_prefix("$ ") {
                let command = command.split(" #").next().unwrap_or(command);
                found.push(command.trim().to_owned());
            }
        }
    }
    found
}
