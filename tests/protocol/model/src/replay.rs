//! Replays the history of a run. Each write to the table must be the real decision on a logged input, and must keep the
//! guarantees of the model.

use std::collections::BTreeMap;

use ecs_bridge_core::{Input, Record, Rules, State, SubmissionId, Timestamp, decide};

use crate::promise::{of_row, of_write};

/// Every version of the records of a run, and the decisions that its functions logged.
#[derive(Debug, Default)]
pub struct History(BTreeMap<SubmissionId, Versions>);

#[derive(Debug, Default)]
struct Versions {
    records: Vec<Record>,
    decisions: Vec<Decided>,
}

/// A logged decision: its input, its time, and the version of the record. Its write may have lost a race.
#[derive(Clone, Debug)]
pub struct Decided {
    /// `rev` of the record before the decision.
    pub rev: u64,
    /// The function's clock.
    pub now: Timestamp,
    /// The input.
    pub input: Input,
}

/// The result of a replay.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of submissions.
    pub submissions: usize,
    /// The number of writes that created a record. They follow from no decision.
    pub created: usize,
    /// The number of writes that equal the decision on a logged input.
    pub replayed: usize,
    /// Writes that no logged decision explains. They come from a function that logs no decisions, or from a bug.
    pub unexplained: Vec<String>,
    /// Broken guarantees.
    pub problems: Vec<String>,
}

impl History {
    /// Adds a version of a record. Versions can be added in any order.
    pub fn wrote(&mut self, record: Record) {
        self.0.entry(record.submission_id.clone()).or_default().records.push(record);
    }

    /// Adds a decision. Decisions can be added in any order.
    pub fn decided(&mut self, submission_id: SubmissionId, decided: Decided) {
        self.0.entry(submission_id).or_default().decisions.push(decided);
    }

    /// Checks each write, and returns the result. `rules` must be those of the run.
    pub fn check(mut self, rules: &Rules) -> Report {
        let mut report = Report { submissions: self.0.len(), ..Report::default() };
        for submission in self.0.values_mut() {
            submission.records.sort_by_key(|record| record.rev);
            submission.check(rules, &mut report);
        }
        report
    }
}

impl Versions {
    fn check(&self, rules: &Rules, report: &mut Report) {
        let mut before: Option<&Record> = None;
        for after in &self.records {
            let mut breaks = |promise: crate::Promise, is_broken| {
                if is_broken {
                    report.problems.push(format!("broken: {}: {after:?} after {before:?}", promise.name()));
                }
            };
            of_row(after, rules, &mut breaks);
            match before {
                Some(before) => {
                    of_write(before, after, &mut breaks);
                    if self.explains(before, after, rules) {
                        report.replayed += 1;
                    } else {
                        report.unexplained.push(format!("no logged decision changes {before:?} to {after:?}"));
                    }
                }
                None if after.rev == 1 && is_initial(after.state()) => report.created += 1,
                None => report.problems.push(format!("not a valid first version of a record: {after:?}")),
            }
            before = Some(after);
        }
    }

    fn explains(&self, before: &Record, after: &Record, rules: &Rules) -> bool {
        let mut decisions = self.decisions.iter().filter(|decided| decided.rev == before.rev);
        decisions.any(|Decided { now, input, .. }| {
            // The log masks task tokens.
            let decided_on = decide(before, input, *now, rules).record;
            decided_on.is_some_and(|next| next == *after || next == after.clone().masked())
        })
    }
}

/// Returns true if a record can be created in this state.
const fn is_initial(state: State) -> bool {
    match state {
        State::Queued | State::Launching | State::Expired | State::Cancelled => true,
        State::Launched | State::Running | State::Succeeded | State::Failed | State::Rejected | State::Lost => false,
    }
}

#[cfg(test)]
mod tests {
    use ecs_bridge_core::{
        Action, LaunchAnswer,
        decide::PoolInput,
        pool::{Incarnation, Process},
        record::Submission,
    };

    use super::*;
    use crate::{Pools, Promise, Scenario, mutation::in_state};

    /// Returns a submission that is created and then stopped before its launch.
    fn stopped() -> (Record, Decided, Record) {
        let (scenario, rules, now) = (Scenario::new(1, 0), Scenario::rules(), Scenario::at(0));
        let created = Record::queued(scenario.submission(), now, &rules);
        let decided = Decided { rev: created.rev, now, input: Input::Stop("enough".to_owned()) };
        let stopped = decide(&created, &decided.input, now, &rules).record.unwrap();
        (created, decided, stopped)
    }

    fn check(versions: &[&Record], decided: Decided) -> Report {
        let mut history = History::default();
        history.decided(versions.first().unwrap().submission_id.clone(), decided);
        versions.iter().for_each(|&record| history.wrote(record.clone()));
        history.check(&Scenario::rules())
    }

    #[test]
    fn writes_are_replayed_in_rev_order() {
        let (created, decided, stopped) = stopped();
        let expected = Report { submissions: 1, created: 1, replayed: 1, ..Report::default() };
        assert_eq!(check(&[&stopped, &created], decided), expected);
    }

    #[test]
    fn write_that_differs_from_decision_is_unexplained() {
        let (created, decided, stopped) = stopped();
        let mut other = stopped;
        other.attempt.reason = Some("another one".to_owned());
        let report = check(&[&created, &other], decided);
        assert_eq!((report.unexplained.len(), report.problems.len()), (1, 0), "{report:?}");
    }

    #[test]
    fn change_of_terminal_state_is_reported() {
        let (created, decided, stopped) = stopped();
        let mut changed = in_state(&stopped, State::Lost);
        changed.rev += 1;
        let report = check(&[&created, &stopped, &changed], decided);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Final.name())), "{report:?}");
    }

    #[test]
    fn gap_between_versions_is_reported() {
        let (created, decided, stopped) = stopped();
        let mut later = stopped;
        later.rev += 1;
        let report = check(&[&created, &later], decided);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Successors.name())), "{report:?}");
    }

    #[test]
    fn history_without_creation_is_reported() {
        let (_, decided, stopped) = stopped();
        assert_eq!(check(&[&stopped], decided).problems.len(), 1);
    }

    /// Returns a submission that waits for a runner.
    fn waiting() -> Record {
        let submission = Submission { pool: Some(Pools::new(0).pool().0), ..Scenario::new(1, 0).submission() };
        Record::queued(submission, Scenario::at(0), &Scenario::rules())
    }

    fn process(name: &str) -> Process {
        let incarnation = Incarnation::try_from(format!("process-{name}")).unwrap();
        Process { runner_id: "runner-1".parse().unwrap(), incarnation }
    }

    fn claim(name: &str) -> Input {
        let task_arn = "arn:aws:ecs:eu-west-1:123456789012:task/nightly/1".to_owned();
        Input::Pool(PoolInput::Take { by: process(name), task_arn, cluster: "nightly".to_owned() })
    }

    /// Applies these inputs to a record. Returns the history, in which each is logged, and the last version.
    fn replay(mut record: Record, inputs: &[Input]) -> (History, Record) {
        let (mut history, now) = (History::default(), Scenario::at(0));
        history.wrote(record.clone());
        for input in inputs {
            let decided = Decided { rev: record.rev, now, input: input.clone() };
            record = decide(&record, input, now, &Scenario::rules()).record.unwrap();
            history.decided(record.submission_id.clone(), decided);
            history.wrote(record.clone());
        }
        (history, record)
    }

    #[test]
    fn pooled_submission_is_replayed() {
        let done = PoolInput::Done { by: process("1"), exit_code: 7, stopping: false };
        let (history, end) = replay(waiting(), &[claim("1"), Input::Pool(done)]);
        assert_eq!((end.state(), end.attempt.exit_code), (State::Failed, Some(7)));
        let expected = Report { submissions: 1, created: 1, replayed: 2, ..Report::default() };
        assert_eq!(history.check(&Scenario::rules()), expected);
    }

    #[test]
    fn runner_in_feed_is_reported() {
        let (now, rules) = (Scenario::at(0), Scenario::rules());
        let created = Record::new_runner(Scenario::new(1, 0).submission(), Pools::new(0).pool().1, now, &rules);
        let Some(Action::RunTask(call)) = decide(&created, &Input::Due, now, &rules).action else {
            panic!("a new runner must be launched")
        };
        let refused = Input::Launch(call, LaunchAnswer::RefusedForGood("no such image".to_owned()));
        let (history, end) = replay(created, &[Input::Due, refused]);
        assert_eq!((end.state(), &end.feed), (State::Rejected, &None));
        assert_eq!(history.check(&rules).problems, Vec::<String>::new());
        let mut shown = end;
        (shown.feed, shown.rev) = (Some("prod".to_owned()), 1);
        let mut history = History::default();
        history.wrote(shown);
        let report = history.check(&rules);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Timer.name())), "{report:?}");
    }

    #[test]
    fn second_claim_of_attempt_is_reported() {
        let (mut history, taken) = replay(waiting(), &[claim("1")]);
        let (_, other) = replay(waiting(), &[claim("2")]);
        let mut other = other;
        other.rev = taken.rev + 1;
        history.wrote(other);
        let report = history.check(&Scenario::rules());
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::ClaimedOnce.name())), "{report:?}");
    }

    #[test]
    fn claimed_submission_without_request_is_reported() {
        let (mut history, taken) = replay(waiting(), &[claim("1")]);
        let mut written = taken;
        (written.rev, written.request) = (written.rev + 1, None);
        history.wrote(written);
        let report = history.check(&Scenario::rules());
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Request.name())), "{report:?}");
    }
}
