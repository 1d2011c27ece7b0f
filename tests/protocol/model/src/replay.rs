//! The history of a run, replayed: each write to the table must be the real decision on an input that was logged, and
//! keep the promises of the model.

use std::collections::BTreeMap;

use ecs_bridge_core::{Input, Record, Rules, State, SubmissionId, Timestamp, decide};

use crate::promise::{of_row, of_write};

/// Every version of the records of a run, and the decisions that its functions logged.
#[derive(Debug, Default)]
pub struct History(BTreeMap<SubmissionId, Life>);

#[derive(Debug, Default)]
struct Life {
    versions: Vec<Record>,
    decisions: Vec<Decided>,
}

/// An input, and the moment and the version of the record at which it was decided on. Its write may have lost a race.
#[derive(Clone, Debug)]
pub struct Decided {
    /// `rev` of the record before the decision.
    pub rev: u64,
    /// The function's clock.
    pub now: Timestamp,
    /// What was decided on.
    pub input: Input,
}

/// What a replay found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many submissions there are.
    pub submissions: usize,
    /// How many writes created a record. They follow from no decision.
    pub created: usize,
    /// How many writes are what `decide` makes of a logged input.
    pub replayed: usize,
    /// Writes that no logged decision leads to: those of a function that logs none, or bugs.
    pub unexplained: Vec<String>,
    /// Broken promises.
    pub problems: Vec<String>,
}

impl History {
    /// Adds a version of a record; in any order.
    pub fn wrote(&mut self, record: Record) {
        self.0.entry(record.submission_id.clone()).or_default().versions.push(record);
    }

    /// Adds a decision; in any order.
    pub fn decided(&mut self, submission_id: SubmissionId, decided: Decided) {
        self.0.entry(submission_id).or_default().decisions.push(decided);
    }

    /// Checks each write.
    pub fn check(mut self, rules: &Rules) -> Report {
        let mut report = Report { submissions: self.0.len(), ..Report::default() };
        for life in self.0.values_mut() {
            life.versions.sort_by_key(|record| record.rev);
            life.check(rules, &mut report);
        }
        report
    }
}

impl Life {
    fn check(&self, rules: &Rules, report: &mut Report) {
        let mut before: Option<&Record> = None;
        for after in &self.versions {
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
                        report.unexplained.push(format!("no logged decision makes {after:?} of {before:?}"));
                    }
                }
                None if after.rev == 1 && begins(after.state) => report.created += 1,
                None => report.problems.push(format!("the first version of a record: {after:?}")),
            }
            before = Some(after);
        }
    }

    fn explains(&self, before: &Record, after: &Record, rules: &Rules) -> bool {
        let mut decisions = self.decisions.iter().filter(|decided| decided.rev == before.rev);
        decisions.any(|Decided { now, input, .. }| {
            // In the log, a task token is masked.
            let decided_on = decide(before, input, *now, rules).record;
            decided_on.is_some_and(|next| next == *after || next == after.clone().masked())
        })
    }
}

/// Whether a record can be created in this state.
const fn begins(state: State) -> bool {
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
    use crate::{Pools, Promise, Scenario};

    /// A submission that is created, and stopped before its launch.
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
    fn writes_that_follow_from_logged_decisions_are_replayed_in_the_order_of_their_rev() {
        let (created, decided, stopped) = stopped();
        let expected = Report { submissions: 1, created: 1, replayed: 1, ..Report::default() };
        assert_eq!(check(&[&stopped, &created], decided), expected);
    }

    #[test]
    fn a_write_that_differs_from_its_decision_is_unexplained() {
        let (created, decided, stopped) = stopped();
        let other = Record { reason: Some("another one".to_owned()), ..stopped };
        let report = check(&[&created, &other], decided);
        assert_eq!((report.unexplained.len(), report.problems.len()), (1, 0), "{report:?}");
    }

    #[test]
    fn a_change_after_the_end_breaks_a_promise() {
        let (created, decided, stopped) = stopped();
        let changed = Record { rev: stopped.rev + 1, state: State::Lost, ..stopped.clone() };
        let report = check(&[&created, &stopped, &changed], decided);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Final.name())), "{report:?}");
    }

    #[test]
    fn a_gap_between_two_versions_breaks_a_promise() {
        let (created, decided, stopped) = stopped();
        let later = Record { rev: stopped.rev + 1, ..stopped };
        let report = check(&[&created, &later], decided);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Successors.name())), "{report:?}");
    }

    #[test]
    fn a_history_begins_with_the_creation_of_its_record() {
        let (_, decided, stopped) = stopped();
        assert_eq!(check(&[&stopped], decided).problems.len(), 1);
    }

    /// A submission that waits for a runner.
    fn waiting() -> Record {
        let submission = Submission { pool: Some(Pools::new(0).pool().0), ..Scenario::new(1, 0).submission() };
        Record::queued(submission, Scenario::at(0), &Scenario::rules())
    }

    fn process(name: &str) -> Process {
        let incarnation = Incarnation::try_from(format!("process-{name}")).unwrap();
        Process { runner_id: "runner-1".parse().unwrap(), incarnation }
    }

    fn take(name: &str) -> Input {
        let task_arn = "arn:aws:ecs:eu-west-1:123456789012:task/nightly/1".to_owned();
        Input::Pool(PoolInput::Take { by: process(name), task_arn, cluster: "nightly".to_owned() })
    }

    /// Every version of a record on these inputs, each of which is logged.
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
    fn a_submission_that_a_runner_takes_and_reports_is_replayed() {
        let done = PoolInput::Done { by: process("1"), exit_code: 7, stopping: false };
        let (history, end) = replay(waiting(), &[take("1"), Input::Pool(done)]);
        assert_eq!((end.state, end.exit_code), (State::Failed, Some(7)));
        let expected = Report { submissions: 1, created: 1, replayed: 2, ..Report::default() };
        assert_eq!(history.check(&Scenario::rules()), expected);
    }

    #[test]
    fn a_runner_ends_without_a_place_in_the_feed() {
        let (now, rules) = (Scenario::at(0), Scenario::rules());
        let created = Record::runner(Scenario::new(1, 0).submission(), Pools::new(0).pool().1, now, &rules);
        let Some(Action::RunTask(call)) = decide(&created, &Input::Due, now, &rules).action else {
            panic!("a new runner is launched")
        };
        let refused = Input::Launch(call, LaunchAnswer::RefusedForGood("no such image".to_owned()));
        let (history, end) = replay(created, &[Input::Due, refused]);
        assert_eq!((end.state, &end.feed), (State::Rejected, &None));
        assert_eq!(history.check(&rules).problems, Vec::<String>::new());
        let shown = Record { feed: Some("prod".to_owned()), rev: 1, ..end };
        let mut history = History::default();
        history.wrote(shown);
        let report = history.check(&rules);
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Timer.name())), "{report:?}");
    }

    #[test]
    fn a_second_process_that_takes_an_attempt_breaks_a_promise() {
        let (mut history, taken) = replay(waiting(), &[take("1")]);
        let (_, other) = replay(waiting(), &[take("2")]);
        history.wrote(Record { rev: taken.rev + 1, ..other });
        let report = history.check(&Scenario::rules());
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::TakenOnce.name())), "{report:?}");
    }

    #[test]
    fn a_submission_that_was_taken_without_its_request_breaks_a_promise() {
        let (mut history, taken) = replay(waiting(), &[take("1")]);
        history.wrote(Record { rev: taken.rev + 1, request: None, ..taken });
        let report = history.check(&Scenario::rules());
        assert!(report.problems.iter().any(|problem| problem.contains(Promise::Request.name())), "{report:?}");
    }
}
