//! What the catalog knows about releases, as every command tells it.

use dray::catalog::{ReleaseProblem, Severity};

use super::runtime::Context;

/// Tells `problems`: warnings always, notes when asked for more.
pub(super) fn tell(context: &Context, problems: &[ReleaseProblem]) {
    let mut notes = 0;
    for problem in problems {
        match problem.problem.severity {
            Severity::Note if context.global.verbose == 0 => notes += 1,
            Severity::Note => context.output.note(format!("note: {problem}")),
            Severity::Warning => context.output.warn(problem),
            Severity::Blocker => context.output.warn(format!("will not work: {problem}")),
        }
    }
    if notes > 0 {
        let (things, them) = if notes == 1 { ("note", "it") } else { ("notes", "them") };
        context.output.note(format!("{notes} {things} more about these releases; -v shows {them}"));
    }
}
