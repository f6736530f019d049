//! Legacy mode (LRT, LCT, LSS, LGN).

use super::guest::Mode::{Legacy, LegacyPassThrough};
use super::guest::{BEYOND, Guest, NOWHERE, READ, TRANSLATED, TRANSLATION, WRITE};
use super::{Condition, condition};
use crate::reference::Request;
use crate::world::{SECOND_SETS, root_entry, table};

pub fn conditions() -> Vec<Condition> {
    vec![
        condition("LRT.1", 0x08, "The root entry cannot be read.").case(
            "root table outside RAM",
            Legacy,
            READ,
            |g| g.root = NOWHERE,
        ),
        condition("LRT.2", 0x01, "The root entry is not present.").case(
            "root entry not present",
            Legacy,
            READ,
            |g| g.poke(root_entry(0, true), 0),
        ),
        condition(
            "LRT.3",
            0x0a,
            "A reserved field of the root entry is not 0.",
        )
        .case("root entry bit 1", Legacy, READ, |g| {
            g.set(root_entry(0, true), 1 << 1);
        })
        .case("root entry bit 11", Legacy, READ, |g| {
            g.set(root_entry(0, true), 1 << 11);
        })
        .case("root entry bit 64", Legacy, READ, |g| {
            g.set(root_entry(0, true) + 8, 1);
        })
        .case("context table beyond the width", Legacy, READ, |g| {
            g.set(root_entry(0, true), BEYOND);
        }),
        condition("LCT.1", 0x09, "The context entry cannot be read.").case(
            "context table outside RAM",
            Legacy,
            READ,
            |g| g.poke(root_entry(0, true), NOWHERE | 1),
        ),
        condition("LCT.2", 0x02, "The context entry is not present.").case(
            "context entry not present",
            Legacy,
            READ,
            |g| g.clear(g.context(), 1),
        ),
        condition(
            "LCT.3",
            0x0b,
            "A reserved field of the context entry is not 0.",
        )
        .case("context entry bit 4", Legacy, READ, |g| {
            g.set(g.context(), 1 << 4);
        })
        .case("context entry bit 11", Legacy, READ, |g| {
            g.set(g.context(), 1 << 11);
        })
        .case("context entry bit 88", Legacy, READ, |g| {
            g.set(g.context() + 8, 1 << 24);
        })
        .case("context entry bit 127", Legacy, READ, |g| {
            g.set(g.context() + 8, 1 << 63);
        })
        .case("second-stage table beyond the width", Legacy, READ, |g| {
            g.set(g.context(), BEYOND);
        }),
        condition(
            "LCT.4",
            0x03,
            "The context entry is programmed in a way that the unit does not report: \
             TT=11b, TT=01b without DT, TT=10b without PT or with another AW than the \
             largest, or an AW that is not in SAGAW.",
        )
        .case("TT 3", Legacy, READ, |g| g.set(g.context(), 3 << 2))
        .case("TT 1 without ECAP.DT", Legacy, READ, |g| {
            g.setup.features.set_device_tlb(false);
            g.setup.features.set_page_request(false);
        })
        .case("TT 2 without ECAP.PT", LegacyPassThrough, READ, |g| {
            g.setup.features.set_pass_through(false);
        })
        .case("TT 2 with 3 levels of 4", LegacyPassThrough, READ, |g| {
            g.poke(g.context() + 8, 7 << 8 | 1);
        })
        .case("5 levels with 48 bits", Legacy, READ, |g| {
            g.poke(g.context() + 8, 7 << 8 | 3);
        })
        .case("AW 0", Legacy, READ, |g| g.poke(g.context() + 8, 7 << 8)),
        condition(
            "LCT.5",
            0x0d,
            "A translation or translated request, and the context entry has not TT=01b.",
        )
        .qemu("Not raised: requests have no address type.")
        .case("translation request with TT 0", Legacy, TRANSLATION, |g| {
            g.clear(g.context(), 3 << 2);
        })
        .case("translated request with TT 0", Legacy, TRANSLATED, |g| {
            g.clear(g.context(), 3 << 2);
        })
        .case(
            "translation request with TT 2",
            LegacyPassThrough,
            TRANSLATION,
            |_| (),
        ),
        condition("LSS.1", 0x07, "A second-stage entry cannot be read.")
            .qemu("03 for the top table.")
            .case("top second-stage table outside RAM", Legacy, READ, |g| {
                g.poke(g.context(), NOWHERE | 5);
            })
            .case("second-stage table outside RAM", Legacy, READ, |g| {
                g.poke(Guest::second(3), NOWHERE | 3);
            }),
        condition(
            "LSS.2",
            0x0c,
            "A reserved field of a second-stage entry is not 0.",
        )
        .qemu("After permissions are checked.")
        .case("SNP without ECAP.SC", Legacy, READ, |g| {
            g.setup.features.set_snoop_control(false);
            g.set(Guest::second(1), 1 << 11);
        })
        .case("bit 11 of a table's entry", Legacy, READ, |g| {
            g.set(Guest::second(2), 1 << 11);
        })
        .case("PS at level 4", Legacy, READ, |g| {
            g.set(Guest::second(4), 1 << 7);
        })
        .case("2 MiB page without CAP.SSLPS", Legacy, READ, |g| {
            g.setup.features.set_second_stage_2m(false);
            g.poke(Guest::second(2), 0x83);
        })
        .case("1 GiB page without CAP.SSLPS", Legacy, READ, |g| {
            g.setup.features.set_second_stage_1g(false);
            g.poke(Guest::second(3), 0x83);
        })
        .case("misaligned 2 MiB page", Legacy, READ, |g| {
            g.poke(Guest::second(2), 0x1083);
        })
        .case("misaligned 1 GiB page", Legacy, READ, |g| {
            g.poke(Guest::second(3), 0x20_0083);
        })
        .case("page beyond the width", Legacy, READ, |g| {
            g.set(Guest::second(1), BEYOND);
        }),
        condition(
            "LGN.1",
            0x04,
            "The address is beyond the width of the context entry (AW, MGAW).",
        )
        .case(
            "address beyond 4 levels",
            Legacy,
            Request {
                address: BEYOND,
                ..READ
            },
            |_| (),
        )
        .case(
            "address beyond 3 levels",
            Legacy,
            Request {
                address: 1 << 39,
                ..READ
            },
            |g| {
                g.poke(g.context(), table(SECOND_SETS[0], 3) | 5);
                g.poke(g.context() + 8, 7 << 8 | 1);
            },
        )
        .case(
            "legacy pass-through beyond the width",
            LegacyPassThrough,
            Request {
                address: BEYOND,
                ..READ
            },
            |_| (),
        ),
        condition(
            "LGN.2",
            0x05,
            "A write without write permission, or of a page that is not present.",
        )
        .case("write without W in the leaf", Legacy, WRITE, |g| {
            g.clear(Guest::second(1), 2);
        })
        .case("write without W above", Legacy, WRITE, |g| {
            g.clear(Guest::second(3), 2);
        })
        .case("write of a page not present", Legacy, WRITE, |g| {
            g.poke(Guest::second(1), 0);
        }),
        condition(
            "LGN.3",
            0x06,
            "A read without read permission, or of a page that is not present.",
        )
        .case("read without R in the leaf", Legacy, READ, |g| {
            g.clear(Guest::second(1), 1);
        })
        .case("read without R above", Legacy, READ, |g| {
            g.clear(Guest::second(2), 1);
        })
        .case("read of a table not present", Legacy, READ, |g| {
            g.poke(Guest::second(4), 0);
        }),
        condition("LGN.4", 0x0e, "The result is in the interrupt range.")
            .qemu("Also for every other address of a large page that overlaps the range.")
            .case("legacy page in the interrupt range", Legacy, READ, |g| {
                g.poke(Guest::second(1), 0xfeef_f003);
            }),
    ]
}
