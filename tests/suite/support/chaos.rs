//! Random trouble between the program and Rally, for tests of what holds whatever happens.

use std::time::Duration;

use rally_simulator::{Action, Batch, Fault, Match};

use super::fault::{errors, retry_after, status};
use super::process::{kill, kill_after, spawn, wait_for};
use super::{DELIVER_LATER, Random, Server};

/// By then a request of a killed process has taken effect, also on a busy machine.
const READ_LAG: &str = "read_lag = \"150ms\"";

impl Server {
    /// Chooses what kind of Rally this is, in which writes conflict at times.
    pub fn make_unreliable(&self, random: &mut Random) {
        self.write_configuration(self.configuration().rally(READ_LAG).sections(DELIVER_LATER));
        let batches = [Batch::Normal, Batch::Normal, Batch::Missing, Batch::AllOrNothing, Batch::Garbage];
        let batch = *random.pick(&batches);
        self.rally.settings(|settings| {
            settings.batch = batch;
            settings.conflict_percent = 10;
            settings.conflict_seed = random.next();
        });
    }

    /// Plants a fault for one of the next requests.
    pub fn plant_fault(&self, random: &mut Random) {
        let conflict = "Concurrency conflict: [Object has been modified since being read]";
        let actions = [
            Action::CutBefore,
            Action::CutAfter,
            Action::CutMidBody,
            Action::Garbage,
            Action::GarbageAfter,
            Action::EntryErrors { every: 2, errors: vec![conflict.into()] },
            Action::ErrorsAfter(vec!["Validation error: refused, it says".into()]),
            Action::StatusAfter { code: 502, body: String::new() },
            errors(conflict),
            errors("Validation error: refused"),
            status(401),
            status(413),
            status(500),
            status(503),
            retry_after(429, 1),
        ];
        let on = Match { skip: random.below(6), ..Match::default() };
        let action = random.pick(&actions).clone();
        self.rally.fault(Fault { on, times: 1 + random.below(3), action });
    }

    /// Kills a delivery at some time.
    pub fn kill_delivery(&self, random: &mut Random) {
        let command = self.command(&["deliver", "--wait"]);
        kill_after(spawn(command), Duration::from_millis(random.below(120) as u64));
    }

    /// Kills a delivery while Rally works on one of its writes, which takes effect at some time after that.
    pub fn kill_during_slow_write(&self, random: &mut Random) {
        let effect = Action::EffectAfterLeave(Duration::from_millis(random.below(400) as u64));
        let on = Match { method: Some("POST"), skip: random.below(3), ..Match::default() };
        self.rally.fault(Fault { on, times: 1, action: effect });
        let mut delivery = spawn(self.command(&["deliver"]));
        let posts = || self.rally.requests().iter().filter(|request| request.method == "POST").count();
        let before = posts();
        let mut has_ended = || delivery.try_wait().expect("it was ours").is_some();
        wait_for("a write, or the end", || has_ended() || posts() > before);
        kill(delivery);
    }

    /// Ends all faults, and delivers all that there is.
    pub fn settle(&self) {
        self.rally.clear_faults();
        self.rally.settings(|settings| settings.conflict_percent = 0);
        self.run(&["catch-up"]).succeeds();
        // What was unclear is clear once Rally has ended all that was sent.
        self.rally.wait_for_quiet();
        self.let_time_pass();
        self.run(&["retry", "--all"]);
        self.run(&["deliver", "--wait"]).succeeds();
        self.assert_counts_add_up();
    }
}
