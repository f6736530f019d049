//! A program of operations on unit and reference, compared after each.
//!
//! What the unit may have cached is where the two may differ. Of root, context, directory and PASID
//! entries it may use any state since the last invalidation that covers them. Of translations it may
//! repeat each answer it gave since the last one that covers the page; a write may use only what was
//! written before, or what has no dirty bit. The tables above those of 4 KiB pages may be as they were at
//! an answer since the last invalidation that covers them, if the request then succeeds and the entry of the page is not to be
//! marked. All else must be as the tables are now.

use crate::cache::{Fill, LastTable};
use crate::compare::{agrees, translated};
use crate::coverage::Coverage;
use crate::machine::{Machine, QUEUE, Record, SOURCE_IDS, STATUS, Said, Setup};
use crate::program::{Change, How, Op};
use crate::reference::lookup::{self, Stages, table_mode};
use crate::reference::queue::{self, Command};
use crate::reference::walk::{in_interrupt_range, walk};
use crate::reference::{
    Context, Kind, Outcome, Paging, Refusal, Request, Update, bit, field, mask, recoverable,
};
use crate::world::{PASIDS, ROOT, World};

/// How far back an answer may reach, for all devices and PASIDs.
#[derive(Clone, Default)]
pub struct Since {
    pub contexts: [usize; 2],
    pub pasids: Vec<[usize; 2]>,
}

/// One answer that the unit may give.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub paging: Option<Paging>,
    pub outcome: Outcome,
}

pub struct Run<'a> {
    pub machine: Machine,
    coverage: &'a mut Coverage,
    initial: Vec<(u64, u64)>,
    pub root: u64,
    translating: bool,
    pub since: Since,
    /// Moments at which configuration tables may have changed.
    breaks: Vec<usize>,
    pub fills: Vec<Fill>,
    pub tables: Vec<LastTable>,
}

/// Set up a guest and run its program. If it is `moving`, the unit's state is saved and loaded before each
/// third operation, elsewhere or in place, and caches are to be empty then.
pub fn run(world: &World, ops: &[Op], moving: bool, coverage: &mut Coverage) -> Result<(), String> {
    let root = ROOT | u64::from(!world.legacy) << 10;
    let mut run = Run::new(world.setup, world.memory.clone(), root, coverage);
    for change in &world.changes {
        run.change(change);
    }
    run.set_root();
    for (index, op) in ops.iter().enumerate() {
        // There is room for something to be cached, and for the tables to change.
        if moving && index % 3 == 0 {
            run.machine.migrate(index % 2 == 0);
            run.cover_everything();
        }
        run.op(op)
            .map_err(|error| format!("operation {index}, {op:?}: {error}"))?;
    }
    let differences = run.machine.differences();
    if !differences.is_empty() {
        return Err(format!("memory was changed: {differences:x?}"));
    }
    Ok(())
}

impl<'a> Run<'a> {
    /// A guest with these tables, that has set this root table and turned translation on.
    pub fn new(
        setup: Setup,
        initial: Vec<(u64, u64)>,
        root: u64,
        coverage: &'a mut Coverage,
    ) -> Self {
        let Some(mut machine) = Machine::new(setup) else {
            panic!("the unit does not want to be {setup:?}");
        };
        for &(address, value) in &initial {
            machine.poke(address, value);
        }
        machine.enable_queue();
        machine.set_root(root);
        machine.set_translation(true);
        let now = machine.memory.version();
        Self {
            machine,
            coverage,
            initial,
            root,
            translating: true,
            since: Since {
                contexts: [now; 2],
                pasids: vec![[now; 2]; PASIDS.len() + 1],
            },
            breaks: Vec::new(),
            fills: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// The codes that the tables give now; none if they permit the request.
    pub fn expected_codes(&self, device: usize, request: &Request) -> Vec<u8> {
        let candidates = self.candidates(device, request);
        match &candidates[..] {
            [
                Candidate {
                    outcome: Outcome::Refused(refusal, _),
                    ..
                },
            ] => refusal.codes.clone(),
            _ => Vec::new(),
        }
    }

    fn op(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Request { device, request } => drop(self.request(*device, request)?),
            Op::Change(change) => self.change(change),
            Op::Invalidate { descriptors, wait } => self.invalidate(descriptors, *wait)?,
            Op::ContextCommand(command) => self.context_command(*command)?,
            Op::IotlbCommand { address, command } => self.iotlb_command(*address, *command)?,
            Op::Root { mode } => {
                let supported = match mode {
                    1 => self.machine.capabilities.scalable_mode(),
                    3 => self.machine.capabilities.abort_dma(),
                    _ => true,
                };
                if supported {
                    self.root = ROOT | mode << 10;
                    self.set_root();
                }
            }
            Op::Translation(on) => {
                self.machine.set_translation(*on);
                self.translating = *on;
            }
        }
        Ok(())
    }

    /// 6.6, 11.4.4.1: with ESRTPS, setting the root table invalidates everything.
    fn set_root(&mut self) {
        self.machine.set_root(self.root);
        self.cover_everything();
    }

    /// Nothing is cached any more.
    fn cover_everything(&mut self) {
        for command in [Command::Contexts, Command::Pasids, Command::Translations] {
            self.covered(command);
        }
    }

    fn change(&mut self, change: &Change) {
        let Change { address, how } = *change;
        let now = self.machine.peek(address);
        let initial = || {
            let before = self.initial.iter().rev().find(|(at, _)| *at == address);
            before.map_or(0, |&(_, value)| value)
        };
        let value = match how {
            How::Toggle(number) => now ^ 1 << number,
            How::Page(page) => now & !mask(51, 12) | page << 12,
            How::Clear => 0,
            How::Restore => initial(),
        };
        if value != now {
            self.breaks.push(self.machine.memory.version());
            self.machine.poke(address, value);
        }
    }

    /// The moments from `since` to now at which tables may differ.
    fn moments(&self, since: usize) -> Vec<usize> {
        let now = self.machine.memory.version();
        let mut moments: Vec<usize> = self
            .breaks
            .iter()
            .copied()
            .filter(|&moment| moment >= since && moment < now)
            .collect();
        if since < now {
            moments.push(since);
        }
        moments.push(now);
        moments.dedup();
        moments
    }

    fn pasid_since(&self, device: usize, pasid: u32) -> usize {
        let index = PASIDS.iter().position(|&known| known == pasid);
        self.since.pasids[index.unwrap_or(PASIDS.len())][device]
    }

    /// Context entries that the unit may use. Entries that are wrong are cached in caching mode
    /// only (6.1).
    pub fn contexts(&self, device: usize, since: usize) -> Vec<Result<Context, Refusal>> {
        let machine = &self.machine;
        let now = machine.memory.version();
        let mut contexts = Vec::new();
        for moment in self.moments(since) {
            let view = machine.memory.at(moment);
            let source_id = SOURCE_IDS[device];
            let context = lookup::context(view, &machine.capabilities, self.root, source_id);
            let kept = context.is_ok() || moment == now || machine.capabilities.caching_mode();
            if kept && !contexts.contains(&context) {
                contexts.push(context);
            }
        }
        contexts
    }

    /// The same of PASID entries, found through any of the contexts.
    pub fn pagings(
        &self,
        device: usize,
        context: &Context,
        pasid: u32,
    ) -> Vec<Result<Paging, Refusal>> {
        let machine = &self.machine;
        let now = machine.memory.version();
        let since = self.pasid_since(device, pasid);
        // A PASID entry may have been found through a directory that is gone.
        let mut contexts = vec![context.clone()];
        for other in self.contexts(device, since).into_iter().flatten() {
            if !contexts.contains(&other) && matches!(other, Context::Scalable { .. }) {
                contexts.push(other);
            }
        }
        let mut pagings = Vec::new();
        for (index, context) in contexts.iter().enumerate() {
            for moment in self.moments(since) {
                if index > 0 && moment == now {
                    continue;
                }
                let view = machine.memory.at(moment);
                let paging = lookup::pasid_entry(view, &machine.capabilities, context, pasid);
                let kept = paging.is_ok() || moment == now || machine.capabilities.caching_mode();
                if kept && !pagings.contains(&paging) {
                    pagings.push(paging);
                }
            }
        }
        pagings
    }

    /// What the unit may answer from tables.
    fn candidates(&self, device: usize, request: &Request) -> Vec<Candidate> {
        let machine = &self.machine;
        let refused = |refusal| Candidate {
            paging: None,
            outcome: Outcome::Refused(refusal, Vec::new()),
        };
        // 7.1.3: RTA.2 comes before anything is read.
        if table_mode(self.root) == 0 && request.pasid.is_some() {
            return vec![refused(Refusal::new(0x31, false))];
        }
        let mut candidates = Vec::new();
        for context in self.contexts(device, self.since.contexts[device]) {
            let context = match context {
                Ok(context) => context,
                Err(refusal) => {
                    candidates.push(refused(refusal));
                    continue;
                }
            };
            let pasid = match lookup::admit(&context, request) {
                Ok(pasid) => pasid,
                Err(refusal) => {
                    candidates.push(refused(refusal));
                    continue;
                }
            };
            let pagings = match pasid {
                // 4.2.4: a translated request carries its result.
                None if request.kind == Kind::Translated => {
                    let width = machine.capabilities.host_width;
                    candidates.push(translated(&context, request, width));
                    continue;
                }
                None => lookup::legacy_paging(&context, &machine.capabilities)
                    .map(Ok)
                    .into_iter()
                    .collect(),
                Some(pasid) => self.pagings(device, &context, pasid),
            };
            for paging in pagings {
                let admitted = paging.and_then(|paging| {
                    lookup::admit_pasid(&paging, request)?;
                    Ok(paging)
                });
                candidates.push(match admitted {
                    Ok(paging) => Candidate {
                        outcome: walk(
                            machine.memory.now(),
                            &machine.capabilities,
                            &paging,
                            request,
                        ),
                        paging: Some(paging),
                    },
                    Err(refusal) => refused(refusal),
                });
            }
        }
        candidates
    }

    /// A request to both. What the unit said, if it was asked.
    pub fn request(&mut self, device: usize, request: &Request) -> Result<Option<Said>, String> {
        // Interrupts are not DMA: no VMM asks where one goes.
        let interrupt = request.kind == Kind::Untranslated && request.pasid.is_none();
        if interrupt && in_interrupt_range(request.address) {
            return Ok(None);
        }
        if !self.translating {
            self.untranslated(device, request)?;
            return Ok(None);
        }
        let candidates = self.candidates(device, request);
        let candidates = self.with_cached_tables(device, request, candidates);
        let repeats: Vec<Fill> = self
            .fills
            .iter()
            .filter(|fill| fill.serves(device, request, &candidates))
            .cloned()
            .collect();
        let said = self.machine.request(device, request);
        let record = self.machine.take_record();

        let agreeing: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| agrees(&candidate.outcome, request, &said).is_ok())
            .collect();
        let repeated = repeats.iter().any(|fill| fill.is(request, &said));
        if agreeing.is_empty() && !repeated {
            let expected: Vec<String> = candidates
                .iter()
                .map(|candidate| {
                    let why = agrees(&candidate.outcome, request, &said).unwrap_err();
                    format!("\n  {why}: {candidate:x?}")
                })
                .collect();
            return Err(format!(
                "the unit says {said:x?}, expected is {}{}",
                expected.concat(),
                if repeats.is_empty() {
                    String::new()
                } else {
                    format!("\n  or a repeat of {repeats:x?}")
                }
            ));
        }
        self.check_record(device, request, &said, record, &agreeing)?;
        self.check_updates(&candidates, &agreeing, repeated, &said)?;
        self.note(request, &said, &agreeing, repeated);
        self.remember(device, request, &said, &candidates);
        Ok(Some(said))
    }

    /// 11.4.4.1: with TE clear requests go where they say, and there are no translations to ask for.
    fn untranslated(&mut self, device: usize, request: &Request) -> Result<(), String> {
        let said = self.machine.request(device, request);
        let right = match said {
            Said::Page { address, .. } => {
                request.kind != Kind::Translation && address == request.address
            }
            Said::Refused { recoverable, .. } => request.kind == Kind::Translation && !recoverable,
        };
        if right && self.machine.take_record().is_none() {
            self.coverage.hit("translation off");
            return Ok(());
        }
        Err(format!("translation is off and the unit says {said:x?}"))
    }

    /// 7.2.1, 11.4.7.7: what is recorded.
    fn check_record(
        &mut self,
        device: usize,
        request: &Request,
        said: &Said,
        record: Option<Record>,
        agreeing: &[&Candidate],
    ) -> Result<(), String> {
        let Said::Refused { code, .. } = *said else {
            return match record {
                None => Ok(()),
                Some(record) => Err(format!("not refused, but recorded {record:x?}")),
            };
        };
        let answered = request.kind == Kind::Translation && recoverable(code);
        let may = |quiet: bool| {
            agreeing.iter().any(|candidate| {
                matches!(&candidate.outcome, Outcome::Refused(refusal, _) if refusal.quiet == quiet)
            })
        };
        match record {
            None if answered => self.coverage.hit("recoverable fault"),
            None if may(true) => self.coverage.hit("fault processing disabled"),
            None => return Err(format!("refused with {code:#x}, but not recorded")),
            Some(record) if answered || !may(false) => {
                return Err(format!("{record:x?} is not to be recorded"));
            }
            Some(record) => {
                let Record { low, high } = record;
                let mut expected = 1 << 63 | u64::from(code) << 32;
                expected |= u64::from(SOURCE_IDS[device]);
                expected |= (request.kind as u64) << 60;
                if let Some(pasid) = request.pasid {
                    expected |= 1 << 31 | u64::from(pasid) << 40;
                    expected |= u64::from(request.execute) << 30;
                    expected |= u64::from(request.privileged) << 29;
                }
                // T1, T2: a write is 00b, a read 10b; one that does both may be either or 11b.
                let kind = high & (1 << 62 | 1 << 28);
                let kinds: &[u64] = match (request.read, request.write) {
                    (true, false) => &[1 << 62],
                    (false, true) => &[0],
                    _ => &[0, 1 << 62, 1 << 62 | 1 << 28],
                };
                let rest = high & !(1 << 62 | 1 << 28);
                if low != request.address & mask(63, 12)
                    || rest != expected
                    || !kinds.contains(&kind)
                {
                    return Err(format!("recorded {record:x?}, expected {expected:#x}"));
                }
            }
        }
        Ok(())
    }

    /// Accessed and dirty bits: none but those of the walk, and all of them if the answer is not a
    /// repeated one.
    fn check_updates(
        &mut self,
        candidates: &[Candidate],
        agreeing: &[&Candidate],
        repeated: bool,
        said: &Said,
    ) -> Result<(), String> {
        let updates = |candidate: &Candidate| -> Vec<Update> {
            match &candidate.outcome {
                Outcome::Page(page) => page.updates.clone(),
                Outcome::Refused(_, updates) => updates.clone(),
            }
        };
        let machine = &mut self.machine;
        let all: Vec<Update> = candidates.iter().flat_map(updates).collect();
        for update in &all {
            let allowed = all
                .iter()
                .filter(|other| other.address == update.address && other.denied.is_none())
                .fold(0, |bits, other| bits | other.bits);
            let before = machine.memory.read(update.address).expect("RAM");
            let after = machine.peek(update.address);
            if after & !allowed != before & !allowed || after & before != before {
                return Err(format!(
                    "{:#x} was {before:#x} and is {after:#x}; only {allowed:#x} may be set",
                    update.address
                ));
            }
        }
        let complete = |candidate: &&Candidate| match &candidate.outcome {
            Outcome::Page(page) => page
                .updates
                .iter()
                .filter(|update| !update.optional)
                .all(|update| machine.peek(update.address) & update.bits == update.bits),
            Outcome::Refused(..) => true,
        };
        let page = matches!(said, Said::Page { .. });
        if page && !repeated && !agreeing.iter().any(complete) {
            return Err(format!("accessed or dirty bits are missing: {agreeing:x?}"));
        }
        for update in &all {
            machine.learn(update.address);
        }
        Ok(())
    }

    fn note(&mut self, request: &Request, said: &Said, agreeing: &[&Candidate], repeated: bool) {
        let coverage = &mut *self.coverage;
        if agreeing.is_empty() && repeated {
            coverage.hit("repeated what the tables no longer say");
        }
        let legacy = table_mode(self.root) == 0;
        let mode = match agreeing
            .first()
            .and_then(|candidate| candidate.paging.as_ref())
        {
            None => "no paging".to_owned(),
            Some(paging) => match &paging.stages {
                Stages::PassThrough { .. } => "pass-through".to_owned(),
                Stages::First(first) => format!("first stage, {}-level", first.levels),
                Stages::Second(second) => format!("second stage, {}-level", second.levels),
                Stages::Nested(first, second) => {
                    format!("nested, {}-level on {}-level", first.levels, second.levels)
                }
            },
        };
        let mode = format!("{} {mode}", if legacy { "legacy" } else { "scalable" });
        match *said {
            Said::Refused { code, .. } => {
                coverage.hit(format!("fault {code:02x}"));
                coverage.hit(format!("fault {code:02x}, {:?}", request.kind));
            }
            Said::Page { size, .. } => {
                coverage.hit(format!("{mode}, page of {size:#x}"));
                coverage.hit(format!("{mode}, {:?}", request.kind));
                if request.pasid.is_some() {
                    coverage.hit(format!("{mode}, with PASID"));
                }
                if request.write {
                    coverage.hit(format!("{mode}, write"));
                }
                if request.execute {
                    coverage.hit(format!("{mode}, execute"));
                }
                if request.privileged {
                    coverage.hit(format!("{mode}, privileged"));
                }
            }
        }
    }

    /// Descriptors, with or without a wait behind them. Only what a wait follows is sure to be
    /// done.
    fn invalidate(&mut self, descriptors: &[[u64; 4]], wait: bool) -> Result<(), String> {
        let words = if self.machine.wide { 4 } else { 2 };
        let mut commands = Vec::new();
        let mut error = None;
        for descriptor in descriptors {
            match queue::decode(&descriptor[..words]) {
                Ok(command) => commands.push(command),
                Err(code) => {
                    error = Some(code);
                    break;
                }
            }
        }
        let done = if wait {
            self.machine.submit_and_wait(descriptors)
        } else {
            self.machine.submit(descriptors);
            false
        };
        if self.machine.queue_error() != error {
            return Err(format!(
                "IQEI is {:?}, expected {error:?}",
                self.machine.queue_error()
            ));
        }
        // A descriptor may have become a wait with a status address of its own.
        for command in &commands {
            if let Command::Wait {
                status: Some((address, data)),
            } = *command
            {
                self.status_written(address, data);
            }
        }
        match error {
            Some(code) => {
                if done {
                    return Err("the wait behind the error is done".to_owned());
                }
                self.coverage.hit(format!("queue error {code}"));
                self.machine.skip_bad_descriptor();
            }
            None if wait && !done => return Err("the wait is not done".to_owned()),
            None => {}
        }
        if wait {
            for command in commands {
                self.coverage
                    .hit(format!("{command:?}").split([' ', '{']).next().unwrap());
                self.covered(command);
            }
        }
        Ok(())
    }

    fn status_written(&mut self, address: u64, data: u32) {
        let qword = address & !7;
        let Some(before) = self.machine.memory.read(qword) else {
            return;
        };
        if (QUEUE..STATUS + 0x1000).contains(&qword) {
            self.machine.learn(qword);
            return;
        }
        let shift = (address & 4) * 8;
        let value = before & !(0xffff_ffff << shift) | u64::from(data) << shift;
        self.machine.memory.write(qword, value);
    }

    /// CCMD (11.4.6.1).
    fn context_command(&mut self, command: u64) -> Result<(), String> {
        let machine = &self.machine;
        machine.write64(0x28, command);
        let answer = machine.read64(0x28);
        if bit(answer, 63) {
            return Err(format!("CCMD is {answer:#x}: ICC is set"));
        }
        // CAIG: what was done may be more than what was asked.
        let domain = field(command, 15, 0) as u16;
        let done = field(answer, 60, 59);
        if done == 0 || done > field(command, 62, 61) {
            return Err(format!("CCMD is {answer:#x} after {command:#x}"));
        }
        self.coverage.hit("CCMD");
        self.covered(match done {
            1 => Command::Contexts,
            2 => Command::DomainContexts { domain },
            _ => Command::DeviceContexts {
                domain,
                source_id: field(command, 31, 16) as u16,
                ignored: queue::ignored_by(field(command, 33, 32)),
            },
        });
        Ok(())
    }

    /// IVA and IOTLB (11.4.6.2).
    fn iotlb_command(&mut self, address: u64, command: u64) -> Result<(), String> {
        let machine = &self.machine;
        machine.write64(0xf0, address);
        machine.write64(0xf8, command);
        let answer = machine.read64(0xf8);
        if bit(answer, 63) {
            return Err(format!("IOTLB is {answer:#x}: IVT is set"));
        }
        let domain = field(command, 47, 32) as u16;
        let done = field(answer, 58, 57);
        if done == 0 || done > field(command, 61, 60) {
            return Err(format!("IOTLB is {answer:#x} after {command:#x}"));
        }
        self.coverage.hit("IOTLB register");
        self.covered(match done {
            1 => Command::Translations,
            2 => Command::DomainTranslations { domain },
            _ => Command::Pages {
                domain,
                address: address & mask(63, 12),
                order: field(address, 5, 0) as u32,
                leaf_only: bit(address, 6),
            },
        });
        Ok(())
    }
}
