//! Root, context and PASID tables of scalable mode (RTA, SRT, SCT, SPD, SPT).

use super::guest::Mode::{First, Legacy, Nested, PassThrough, Second};
use super::guest::{BEYOND, NOWHERE, PASID, READ, TRANSLATED, TRANSLATION, WITH_PASID};
use super::{Condition, condition};
use crate::reference::Request;
use crate::world::{DIRECTORY, ROOT, directory_entry, root_entry};

pub fn conditions() -> Vec<Condition> {
    vec![
        condition(
            "RTA.1",
            0x30,
            "RTADDR.TTM is reserved, or scalable mode without SMTS, or abort-DMA mode \
             without ADMS.",
        )
        .qemu("Not raised: 10b is taken for legacy and 11b for scalable mode.")
        .case("TTM 2", First, READ, |g| g.root = ROOT | 2 << 10)
        .case("TTM 3 without ECAP.ADMS", First, READ, |g| {
            g.setup.features.set_abort_dma(false);
            g.root = ROOT | 3 << 10;
        })
        .case("TTM 1 without ECAP.SMTS", Legacy, READ, |g| {
            let features = &mut g.setup.features;
            features.set_scalable_mode(false);
            features.set_first_stage(false);
            features.set_nested(false);
            features.set_first_stage_1g(false);
            features.set_second_stage_accessed_dirty(false);
            features.set_page_request(false);
            features.set_extended_accessed(false);
            features.set_supervisor_request(false);
            features.set_execute_request(false);
            features.set_rid_pasid(false);
            features.set_abort_dma(false);
            g.setup.pasid_bits = 0;
            g.root = ROOT | 1 << 10;
        }),
        condition("RTA.2", 0x31, "A request with PASID in legacy mode.")
            .qemu("Not raised.")
            .case("PASID in legacy mode", Legacy, WITH_PASID, |_| ()),
        condition("RTA.4", 0x33, "Abort-DMA mode.")
            .qemu("Not reported; taken for scalable mode.")
            .case("abort-DMA mode", First, READ, |g| g.root = ROOT | 3 << 10),
        condition("SRT.1", 0x38, "The root entry cannot be read.")
            .qemu("08.")
            .case("scalable root table outside RAM", First, READ, |g| {
                g.root = NOWHERE | 1 << 10;
            }),
        condition("SRT.2", 0x39, "The half of the root entry is not present.")
            .qemu("01.")
            .case("scalable root entry not present", First, READ, |g| {
                g.poke(root_entry(0, false), 0);
            }),
        condition(
            "SRT.3",
            0x3a,
            "A reserved field of the root entry is not 0.",
        )
        .qemu("0A.")
        .case("scalable root entry bit 1", First, READ, |g| {
            g.set(root_entry(0, false), 1 << 1);
        })
        .case("scalable root entry bit 11", First, READ, |g| {
            g.set(root_entry(0, false), 1 << 11);
        })
        .case(
            "scalable context table beyond the width",
            First,
            READ,
            |g| {
                g.set(root_entry(0, false), BEYOND);
            },
        ),
        condition("SCT.1", 0x40, "The context entry cannot be read.")
            .qemu("09.")
            .case("scalable context table outside RAM", First, READ, |g| {
                g.poke(root_entry(0, false), NOWHERE | 1);
            }),
        condition("SCT.2", 0x41, "The context entry is not present.")
            .qemu("02.")
            .case("scalable context entry not present", First, READ, |g| {
                g.clear(g.context(), 1);
            }),
        condition(
            "SCT.3",
            0x42,
            "A reserved field of the context entry is not 0: one that is always \
             reserved, or one of a capability that is not reported (DTE, PASIDE, PRE, \
             RID_PASID, RID_PRIV).",
        )
        .qemu("0B; fields of capabilities that are not reported are ignored.")
        .case("scalable context entry bit 5", First, READ, |g| {
            g.set(g.context(), 1 << 5);
        })
        .case("scalable context entry bit 8", First, READ, |g| {
            g.set(g.context(), 1 << 8);
        })
        .case("scalable context entry bit 85", First, READ, |g| {
            g.set(g.context() + 8, 1 << 21);
        })
        .case("scalable context entry bit 128", First, READ, |g| {
            g.set(g.context() + 16, 1);
        })
        .case("scalable context entry bit 255", First, READ, |g| {
            g.set(g.context() + 24, 1 << 63);
        })
        .case("PASID directory beyond the width", First, READ, |g| {
            g.set(g.context(), BEYOND);
        })
        .case("DTE without ECAP.DT", First, READ, |g| {
            g.setup.features.set_device_tlb(false);
            g.setup.features.set_page_request(false);
        })
        .case("PASIDE without ECAP.PASID", First, READ, |g| {
            g.setup.pasid_bits = 0;
            g.setup.features.set_supervisor_request(false);
            g.setup.features.set_execute_request(false);
        })
        .case("PRE without ECAP.PRS", First, READ, |g| {
            g.setup.features.set_page_request(false);
            g.set(g.context(), 1 << 4);
        })
        .case("RID_PASID without ECAP.RPS", First, READ, |g| {
            g.setup.features.set_rid_pasid(false);
            g.poke(g.context() + 8, PASID.into());
        })
        .case("RID_PRIV without ECAP.RPRIVS", First, READ, |g| {
            g.poke(g.context() + 8, 1 << 20);
        }),
        condition("SCT.4", 0x43, "The context entry has PRE=1 and DTE=0.")
            .qemu("Not checked.")
            .case("PRE without DTE", First, READ, |g| {
                g.set(g.context(), 1 << 4);
                g.clear(g.context(), 1 << 2);
            }),
        condition(
            "SCT.5",
            0x44,
            "A translation or translated request (or a page request), and DTE=0.",
        )
        .qemu("Not raised: requests have no address type.")
        .case("translation request without DTE", First, TRANSLATION, |g| {
            g.clear(g.context(), 1 << 2);
        })
        .case("translated request without DTE", First, TRANSLATED, |g| {
            g.clear(g.context(), 1 << 2);
        }),
        condition("SCT.6", 0x45, "A request with PASID, and PASIDE=0.")
            .qemu("Not checked.")
            .case("PASID without PASIDE", First, WITH_PASID, |g| {
                g.clear(g.context(), 1 << 3);
            }),
        condition("SCT.7", 0x46, "The PASID is beyond the directory (PDTS).")
            .qemu("Not checked.")
            .case(
                "PASID beyond the directory",
                First,
                Request {
                    pasid: Some(64 << 7),
                    ..READ
                },
                |_| (),
            ),
        condition("SCT.9", 0x48, "RID_PASID is beyond the directory (PDTS).")
            .qemu("Not checked.")
            .case("RID_PASID beyond the directory", First, READ, |g| {
                g.poke(g.context() + 8, 64 << 7);
            }),
        condition("SPD.1", 0x50, "The directory entry cannot be read.").case(
            "PASID directory outside RAM",
            First,
            READ,
            |g| g.poke(g.context(), NOWHERE | 1),
        ),
        condition("SPD.2", 0x51, "The directory entry is not present.")
            .qemu("Recorded even with FPD=1.")
            .case("directory entry not present", First, READ, |g| {
                g.clear(DIRECTORY, 1);
            }),
        condition(
            "SPD.3",
            0x52,
            "A reserved field of the directory entry is not 0.",
        )
        .qemu("Not checked.")
        .case("directory entry bit 2", First, READ, |g| {
            g.set(DIRECTORY, 1 << 2);
        })
        .case("directory entry bit 11", First, WITH_PASID, |g| {
            g.set(directory_entry(PASID), 1 << 11);
        })
        .case("PASID table beyond the width", First, READ, |g| {
            g.set(DIRECTORY, BEYOND);
        }),
        condition("SPT.1", 0x58, "The PASID entry cannot be read.").case(
            "PASID table outside RAM",
            First,
            READ,
            |g| g.poke(DIRECTORY, NOWHERE | 1),
        ),
        condition("SPT.2", 0x59, "The PASID entry is not present.")
            .qemu("5B if PGTT is not supported either; recorded even with FPD=1.")
            .case("PASID entry not present", First, READ, |g| {
                g.clear(g.entry(), 1);
            }),
        condition(
            "SPT.3",
            0x5a,
            "A reserved field of the PASID entry is not 0: one that is always \
             reserved, or one of a capability that is not reported (SSADE, PGSNP, EMTE, \
             SRE, ERE, EAFE).",
        )
        .qemu("Not checked.")
        .case("PASID entry bit 10", First, READ, |g| {
            g.set(g.entry(), 1 << 10);
        })
        .case("PASID entry bit 80", First, READ, |g| {
            g.set(g.entry() + 8, 1 << 16);
        })
        .case("PASID entry bit 136", First, READ, |g| {
            g.set(g.entry() + 16, 1 << 8);
        })
        .case("PASID entry bit 192", First, READ, |g| {
            g.set(g.entry() + 24, 1);
        })
        .case("PASID entry bit 511", First, READ, |g| {
            g.set(g.entry() + 56, 1 << 63);
        })
        .case("SSADE without ECAP.SSADS", Second, READ, |g| {
            g.setup.features.set_second_stage_accessed_dirty(false);
            g.set(g.entry(), 1 << 9);
        })
        .case("PGSNP without ECAP.SC", First, READ, |g| {
            g.setup.features.set_snoop_control(false);
            g.set(g.entry() + 8, 1 << 24);
        })
        .case("EMTE without ECAP.MTS", First, READ, |g| {
            g.set(g.entry() + 8, 1 << 26);
        })
        .case("SRE without ECAP.SRS", First, READ, |g| {
            g.setup.features.set_supervisor_request(false);
            g.set(g.entry() + 16, 1);
        })
        .case("ERE without ECAP.ERS", First, READ, |g| {
            g.setup.features.set_execute_request(false);
            g.set(g.entry() + 16, 2);
        })
        .case("EAFE without ECAP.EAFS", First, READ, |g| {
            g.setup.features.set_extended_accessed(false);
            g.set(g.entry() + 16, 1 << 7);
        }),
        condition(
            "SPT.4",
            0x5b,
            "The PASID entry is programmed in a way that the unit does not report: \
             PGTT; AW not in SAGAW (second stage, nested); FSPM reserved, or 5-level \
             without FS5LP.",
        )
        .qemu(
            "Also for second stage where the first stage is offered and the reverse, \
             for nested, for 5-level, and for a PASID entry that is not present.",
        )
        .case("PGTT 0", First, READ, |g| g.clear(g.entry(), 7 << 6))
        .case("PGTT 5", First, READ, |g| g.set(g.entry(), 4 << 6))
        .case("first stage without ECAP.FSTS", First, READ, |g| {
            let features = &mut g.setup.features;
            features.set_first_stage(false);
            features.set_first_stage_1g(false);
            features.set_nested(false);
            features.set_extended_accessed(false);
            features.set_supervisor_request(false);
            features.set_execute_request(false);
        })
        .case("second stage without ECAP.SSTS", Second, READ, |g| {
            let features = &mut g.setup.features;
            features.set_second_stage(false);
            features.set_nested(false);
            features.set_second_stage_2m(false);
            features.set_second_stage_1g(false);
            features.set_second_stage_accessed_dirty(false);
        })
        .case("nested without ECAP.NEST", Nested, READ, |g| {
            g.setup.features.set_nested(false);
        })
        .case("pass-through without ECAP.PT", PassThrough, READ, |g| {
            g.setup.features.set_pass_through(false);
        })
        .case("second stage of 5 levels with 48 bits", Second, READ, |g| {
            g.set(g.entry(), 1 << 2);
        })
        .case("nested on AW 0", Nested, READ, |g| {
            g.clear(g.entry(), 7 << 2);
        })
        .case("FSPM 2", First, READ, |g| g.set(g.entry() + 16, 2 << 2))
        .case("5 levels without CAP.FS5LP", First, READ, |g| {
            g.set(g.entry() + 16, 1 << 2);
        })
        .case("nested, 5 levels without CAP.FS5LP", Nested, READ, |g| {
            g.set(g.entry() + 16, 1 << 2);
        }),
        condition("SPT.5", 0x5c, "An execute request, and ERE=0.")
            .qemu("Not checked.")
            .case(
                "execute request without ERE",
                First,
                Request {
                    execute: true,
                    ..WITH_PASID
                },
                |_| (),
            ),
        condition("SPT.6", 0x5d, "A privileged request, and SRE=0.")
            .qemu("Not checked.")
            .case(
                "privileged request without SRE",
                First,
                Request {
                    privileged: true,
                    ..WITH_PASID
                },
                |_| (),
            ),
    ]
}
