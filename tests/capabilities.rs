//! Which configuration gives which bit of CAP and ECAP, and what is refused: the tables
//! of docs/capabilities.md. With `NVTD_WRITE_DOCS` set the page is written, otherwise it
//! is compared.

mod common;

use std::fmt::Write;
use std::sync::Arc;

use common::Notes;
use nested_vtd::host::HwInfo;
use nested_vtd::host::soft::{Kernel, Twin, TwinConfig, TwinDevice, capable_iommu};
use nested_vtd::memory::OwnedRam;
use nested_vtd::unit::{Config, DeviceDescription, Features, HostKind, Inject, Unit};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/capabilities.md");

/// Fields of CAP (11.4.2) and ECAP (11.4.3) that a configuration can change.
const CAP_FIELDS: &[(u64, &str)] = &[
    (1 << 7, "CM"),
    (0x1f << 8, "SAGAW"),
    (0x3f << 16, "MGAW"),
    (0xf << 34, "SSLPS"),
    (1 << 56, "FS1GP"),
    (1 << 60, "FS5LP"),
    (1 << 62, "ESIRTPS"),
];
const ECAP_FIELDS: &[(u64, &str)] = &[
    (1 << 2, "DT"),
    (1 << 3, "IR"),
    (1 << 4, "EIM"),
    (1 << 6, "PT"),
    (1 << 7, "SC"),
    (0xf << 20, "MHMV"),
    (1 << 26, "NEST"),
    (1 << 29, "PRS"),
    (1 << 30, "ERS"),
    (1 << 31, "SRS"),
    (1 << 34, "EAFS"),
    (0x1f << 35, "PSS"),
    (1 << 40, "PASID"),
    (1 << 42, "PDS"),
    (1 << 43, "SMTS"),
    (1 << 45, "SSADS"),
    (1 << 46, "SSTS"),
    (1 << 47, "FSTS"),
    (1 << 48, "SMPWCS"),
    (1 << 49, "RPS"),
    (1 << 52, "ADMS"),
];

fn bits(config: &Config) -> (u64, u64) {
    let found = config.capabilities().unwrap();
    (found.cap.into_bits(), found.ecap.into_bits())
}

/// The fields in which two configurations differ, with the second's values.
fn difference(before: &Config, after: &Config) -> String {
    let ((cap0, ecap0), (cap1, ecap1)) = (bits(before), bits(after));
    let mut names = Vec::new();
    let registers = [
        ("CAP", CAP_FIELDS, cap0, cap1),
        ("ECAP", ECAP_FIELDS, ecap0, ecap1),
    ];
    for (register, fields, old, new) in registers {
        let mut unnamed = old ^ new;
        for &(mask, name) in fields {
            if (old ^ new) & mask != 0 {
                let value = (new & mask) >> mask.trailing_zeros();
                names.push(format!("{register}.{name}={value:#x}"));
            }
            unnamed &= !mask;
        }
        assert_eq!(unnamed, 0, "a field of {register} that has no name here");
    }
    names.join(", ")
}

struct Row {
    property: &'static str,
    constant: &'static str,
    needs: Config,
    with: Config,
    note: &'static str,
}

fn base() -> Config {
    Config {
        features: Features::new()
            .with_scalable_mode(true)
            .with_first_stage(true),
        ..Config::default()
    }
}

fn rows() -> Vec<Row> {
    let row = |property, constant, needs: Features, with: Features, note| Row {
        property,
        constant,
        needs: Config {
            features: needs,
            ..base()
        },
        with: Config {
            features: with,
            ..base()
        },
        note,
    };
    let first = base().features;
    let second = first.with_second_stage(true);
    let pasid = |row: Row| Row {
        needs: Config {
            pasid_bits: 20,
            ..row.needs
        },
        with: Config {
            pasid_bits: 20,
            ..row.with
        },
        ..row
    };
    let legacy = Features::new().with_second_stage(true);
    let tlb = first.with_device_tlb(true);
    let remapping = first.with_interrupt_remapping(true);
    vec![
        row(
            "scalable-mode=on",
            "SCALABLE_MODE",
            legacy,
            legacy.with_scalable_mode(true),
            "without it the guest has legacy mode only",
        ),
        row(
            "first-stage=on",
            "FIRST_STAGE",
            legacy.with_scalable_mode(true),
            second,
            "needs scalable mode; 4-level tables",
        ),
        row(
            "second-stage=on",
            "SECOND_STAGE",
            first,
            second,
            "legacy mode, too; not with a host",
        ),
        row(
            "nest=on",
            "NESTED",
            second,
            second.with_nested(true),
            "needs both stages",
        ),
        row(
            "fs1gp=on",
            "FS1GP",
            first,
            first.with_first_stage_1g(true),
            "no effect without first-stage tables",
        ),
        row(
            "ss2m=on",
            "SECOND_STAGE_2M",
            second,
            second.with_second_stage_2m(true),
            "needs second-stage tables",
        ),
        row(
            "ss1g=on",
            "SECOND_STAGE_1G",
            second,
            second.with_second_stage_1g(true),
            "needs second-stage tables",
        ),
        row(
            "slads=on",
            "SECOND_STAGE_AD",
            second,
            second.with_second_stage_accessed_dirty(true),
            "needs second-stage tables and scalable mode",
        ),
        row(
            "eafs=on",
            "EXTENDED_ACCESSED",
            first,
            first.with_extended_accessed(true),
            "needs first-stage tables",
        ),
        row(
            "snoop-control=on",
            "SNOOP_CONTROL",
            first,
            first.with_snoop_control(true),
            "SNP and PGSNP are then not reserved",
        ),
        row(
            "caching-mode=on",
            "CACHING_MODE",
            first,
            first.with_caching_mode(true),
            "needed with a host and for vfio's mappings",
        ),
        row(
            "pt=on",
            "PASS_THROUGH",
            first,
            first.with_pass_through(true),
            "",
        ),
        row("device-iotlb=on", "DEVICE_TLB", first, tlb, "ATS"),
        row(
            "prs=on",
            "PAGE_REQUEST",
            tlb,
            tlb.with_page_request(true),
            "needs device TLBs and scalable mode",
        ),
        pasid(row(
            "srs=on",
            "SUPERVISOR_REQUEST",
            first,
            first.with_supervisor_request(true),
            "needs first-stage tables and PASIDs",
        )),
        pasid(row(
            "ers=on",
            "EXECUTE_REQUEST",
            first,
            first.with_execute_request(true),
            "needs first-stage tables and PASIDs",
        )),
        row(
            "rid-pasid=on",
            "RID_PASID",
            first,
            first.with_rid_pasid(true),
            "needs scalable mode",
        ),
        row(
            "abort-dma=on",
            "ABORT_DMA",
            first,
            first.with_abort_dma(true),
            "needs scalable mode",
        ),
        row("intremap=on", "INTERRUPT_REMAPPING", first, remapping, ""),
        row(
            "eim=on",
            "EXTENDED_INTERRUPT_MODE",
            remapping,
            remapping.with_extended_interrupt_mode(true),
            "needs interrupt remapping",
        ),
    ]
}

/// Values that do not go together.
fn refused() -> Vec<(&'static str, Config)> {
    let f = base().features;
    let second = f.with_second_stage(true);
    let with = |features| Config { features, ..base() };
    let width = |address_width, features| Config {
        address_width,
        ..with(features)
    };
    let host = |features| Config {
        host: HostKind::Soft,
        ..with(features)
    };
    let legacy = Features::new().with_second_stage(true);
    vec![
        ("aw-bits=40", width(40, f)),
        (
            "pasid-bits=21",
            Config {
                pasid_bits: 21,
                ..base()
            },
        ),
        ("scalable-mode=off,second-stage=off", with(Features::new())),
        (
            "scalable-mode=off,first-stage=on",
            with(legacy.with_first_stage(true)),
        ),
        (
            "first-stage=off,second-stage=off",
            with(Features::new().with_scalable_mode(true)),
        ),
        ("nest=on,second-stage=off", with(f.with_nested(true))),
        ("aw-bits=39,first-stage=on", width(39, second)),
        (
            "pasid-bits=8,scalable-mode=off",
            Config {
                pasid_bits: 8,
                ..with(legacy)
            },
        ),
        (
            "ss2m=on,second-stage=off",
            with(f.with_second_stage_2m(true)),
        ),
        (
            "slads=on,second-stage=off",
            with(f.with_second_stage_accessed_dirty(true)),
        ),
        ("prs=on,device-iotlb=off", with(f.with_page_request(true))),
        (
            "eim=on,intremap=off",
            with(f.with_extended_interrupt_mode(true)),
        ),
        (
            "eafs=on,first-stage=off",
            with(legacy.with_scalable_mode(true).with_extended_accessed(true)),
        ),
        ("srs=on,pasid-bits=0", with(f.with_supervisor_request(true))),
        (
            "rid-pasid=on,scalable-mode=off",
            with(legacy.with_rid_pasid(true)),
        ),
        ("host=soft,caching-mode=off", host(f)),
        (
            "host=soft,second-stage=on",
            host(second.with_caching_mode(true)),
        ),
        (
            "host=soft,ers=on,pasid-bits=20",
            Config {
                pasid_bits: 20,
                ..host(f.with_caching_mode(true).with_execute_request(true))
            },
        ),
        (
            "host=soft,rid-pasid=on",
            host(f.with_caching_mode(true).with_rid_pasid(true)),
        ),
        (
            "host=iommufd,x-inject=refuse-alloc",
            Config {
                host: HostKind::Iommufd,
                inject: Inject {
                    refuse_alloc: true,
                    ..Inject::default()
                },
                ..with(f.with_caching_mode(true))
            },
        ),
        (
            "host=none,x-inject=drop-invalidations",
            Config {
                inject: Inject {
                    drop_invalidations: true,
                    ..Inject::default()
                },
                ..base()
            },
        ),
    ]
}

/// A host that lacks something, and RAM that a guest has at 2^39.
struct Lacking {
    name: &'static str,
    iommu: HwInfo,
    kernel: Kernel,
    device_bits: u32,
}

fn lacking() -> Vec<Lacking> {
    let with = |name, change: fn(&mut HwInfo)| {
        let mut iommu = capable_iommu();
        change(&mut iommu);
        Lacking {
            name,
            iommu,
            kernel: Kernel::V7_3,
            device_bits: 20,
        }
    };
    let capable = |name| with(name, |_| {});
    vec![
        with("ECAP.NEST=0", |host| host.ecap.set_nested(false)),
        with("ECAP.SMTS=0", |host| host.ecap.set_scalable_mode(false)),
        with("ECAP.SSTS=0", |host| host.ecap.set_second_stage(false)),
        with("ECAP.FSTS=0", |host| host.ecap.set_first_stage(false)),
        with("CAP.FS5LP=0", |host| {
            host.cap.set_first_stage_5_level(false);
        }),
        with("CAP.FS1GP=0", |host| host.cap.set_first_stage_1g(false)),
        with("ECAP.SMPWCS=0", |host| {
            host.ecap.set_page_walk_coherent(false);
        }),
        with("ECAP.SRS=0", |host| host.ecap.set_supervisor_request(false)),
        with("ECAP.EAFS=0", |host| host.ecap.set_extended_accessed(false)),
        with("ECAP.DT=0", |host| host.ecap.set_device_tlb(false)),
        with("ECAP.PRS=0", |host| host.ecap.set_page_request(false)),
        with("ECAP.PASID=0", |host| host.ecap.set_pasid(false)),
        Lacking {
            device_bits: 8,
            ..capable("a device with PASIDs of 8 bits")
        },
        Lacking {
            kernel: Kernel::V6_12,
            ..capable("Linux 6.12")
        },
        with("CAP.MGAW=0x26", |host| host.cap.set_address_width(38)),
        with("CAP.SAGAW=0x2", |host| {
            host.cap.set_second_stage_widths(0b00010);
        }),
    ]
}

/// Everything that a host may have to have.
fn greedy() -> Config {
    Config {
        host: HostKind::Iommufd,
        features: base()
            .features
            .with_caching_mode(true)
            .with_first_stage_1g(true)
            .with_device_tlb(true)
            .with_page_request(true)
            .with_supervisor_request(true)
            .with_extended_accessed(true),
        address_width: 57,
        pasid_bits: 20,
        ..base()
    }
}

/// Add a device of this host to a unit that offers that.
fn add(config: Config, host: &Lacking) -> nested_vtd::Result<u32> {
    let twin = Arc::new(Twin::new(TwinConfig {
        kernel: host.kernel,
        iommus: vec![host.iommu],
        ..TwinConfig::default()
    }));
    let unit = Unit::with_system(config, Arc::new(Notes::default()), Arc::clone(&twin) as _)?;
    for gpa in [0, 1 << 39] {
        unit.ram_add(gpa, OwnedRam::new(0x10_0000).into(), false)?;
    }
    let file = twin
        .add_device(TwinDevice {
            max_pasid_bits: host.device_bits,
            ..TwinDevice::default()
        })
        .unwrap();
    unit.device_add(DeviceDescription {
        tag: 0,
        source_id: 0,
        assigned: true,
        iommufd: Some(twin.open()),
        file: Some(file),
        dev_id: None,
        fixed_id: false,
    })
}

fn page() -> String {
    let mut page = String::from(
        "# Capabilities\n\nWhich value of the configuration gives which field of CAP (11.4.2) and ECAP (11.4.3), beyond what \
         every unit has. The properties\nare those of QEMU's device, the constants those of `NvtdConfig.features`, all with \
         `NVTD_FEATURE_` before them. Written by\n`NVTD_WRITE_DOCS=1 cargo test --test capabilities`.\n\n\
         | property | constant | gives | |\n|---|---|---|---|\n",
    );
    for row in rows() {
        let gives = difference(&row.needs, &row.with);
        assert!(!gives.is_empty(), "{} gives nothing", row.property);
        writeln!(
            page,
            "| `{}` | {} | {gives} | {} |",
            row.property, row.constant, row.note
        )
        .unwrap();
    }
    let second = base().features.with_second_stage(true);
    for address_width in [39, 48, 57] {
        let none = Config {
            address_width: 0,
            features: base().features,
            ..base()
        };
        let features = if address_width == 39 {
            Features::new()
                .with_scalable_mode(true)
                .with_second_stage(true)
        } else {
            second
        };
        let some = Config {
            address_width,
            features,
            ..none
        };
        let gives: Vec<String> = difference(&none, &some)
            .split(", ")
            .filter(|field| {
                ["SAGAW", "MGAW", "FS5LP"]
                    .iter()
                    .any(|name| field.contains(name))
            })
            .map(str::to_owned)
            .collect();
        let note = match address_width {
            39 => "not with first-stage tables",
            48 => "what `auto` is; MGAW=0x2f",
            _ => "5-level first-stage and second-stage tables",
        };
        writeln!(
            page,
            "| `aw-bits={address_width}` | address_width | {} | {note} |",
            gives.join(", ")
        )
        .unwrap();
    }
    for pasid_bits in [1, 20] {
        let some = Config {
            pasid_bits,
            ..base()
        };
        writeln!(
            page,
            "| `pasid-bits={pasid_bits}` | pasid_bits | {} | needs scalable mode |",
            difference(&base(), &some)
        )
        .unwrap();
    }
    let (cap, ecap) = bits(&base());
    write!(
        page,
        "\nEvery unit: CAP has ND=6, PSI, MAMV=18, NFR=7 (8 records), FRO=0x22, DWD, DRD and ESRTPS; ECAP has C, QI and IRO=0xf. \
         With scalable\nmode and first-stage tables alone they are {cap:#018x} and {ecap:#018x}.\n\n\
         ## What is refused\n\n| values | why, and what to do |\n|---|---|\n"
    )
    .unwrap();
    for (values, config) in refused() {
        let error = config.capabilities().expect_err(values);
        writeln!(page, "| `{values}` | {error} |").unwrap();
    }
    page.push_str(
        "\n## What a host must have\n\nWhat a device is refused with on a host that lacks something, if the guest is offered \
         everything that goes with a host,\n`aw-bits=57` and `pasid-bits=20`, and has RAM at 0x8000000000.\n\n\
         | the host | why, and what to do |\n|---|---|\n",
    );
    for host in lacking() {
        let error = add(greedy(), &host).expect_err(host.name);
        writeln!(page, "| {} | {error} |", host.name).unwrap();
    }
    page
}

/// The table's hosts are refused for what they lack, and for nothing else.
#[test]
fn a_host_that_has_everything_is_taken() {
    let mut host = lacking().remove(0);
    host.iommu = capable_iommu();
    add(greedy(), &host).unwrap();
}

/// 48 bits, which `auto` is, fit every host with first-stage tables.
#[test]
fn the_default_width_fits_every_host() {
    let mut host = lacking().remove(0);
    host.iommu = capable_iommu();
    host.iommu.cap.set_first_stage_5_level(false);
    let config = Config {
        address_width: 0,
        ..greedy()
    };
    add(config, &host).unwrap();
    assert_eq!(config.capabilities().unwrap().cap.address_width(), 47);
    host.iommu.cap.set_address_width(47);
    host.iommu.cap.set_second_stage_widths(0b00100);
    add(config, &host).unwrap();
    assert!(
        add(greedy(), &host)
            .unwrap_err()
            .message()
            .contains("aw-bits=48")
    );
}

/// RAM that comes later is held to the same.
#[test]
fn ram_beyond_the_host_is_refused() {
    let mut host = lacking().remove(0);
    host.iommu = capable_iommu();
    host.iommu.cap.set_address_width(39);
    host.iommu.cap.set_second_stage_widths(0b00100);
    let twin = Arc::new(Twin::new(TwinConfig {
        iommus: vec![host.iommu],
        ..TwinConfig::default()
    }));
    let system = Arc::clone(&twin) as _;
    let unit = Unit::with_system(greedy(), Arc::new(Notes::default()), system).unwrap();
    let device = DeviceDescription {
        tag: 0,
        source_id: 0,
        assigned: true,
        iommufd: Some(twin.open()),
        file: Some(twin.add_device(TwinDevice::default()).unwrap()),
        dev_id: None,
        fixed_id: false,
    };
    unit.device_add(device).unwrap();
    let size = 0x10_0000;
    let ram = |gpa| unit.ram_add(gpa, OwnedRam::new(size).into(), false);
    ram((1 << 40) - size).unwrap();
    let sentence = ram(1 << 40).unwrap_err().message().to_owned();
    assert!(
        sentence.contains("41 bits") && sentence.contains("40 bits"),
        "{sentence}"
    );
    unit.ram_add(1 << 40, OwnedRam::new(size).into(), true)
        .unwrap();
}

#[test]
fn the_page_says_what_the_unit_does() {
    let page = page();
    if std::env::var_os("NVTD_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/capabilities.md is not up to date; write it with NVTD_WRITE_DOCS=1 cargo test --test capabilities"
    );
}

/// Every sentence says what to do.
#[test]
fn refusals_name_the_remedy() {
    let refused = refused().into_iter().map(|(values, config)| {
        let sentence = config.capabilities().expect_err(values).to_string();
        (values, sentence)
    });
    let lacking = lacking().into_iter().map(|host| {
        let sentence = add(greedy(), &host).expect_err(host.name).to_string();
        (host.name, sentence)
    });
    for (values, sentence) in refused.chain(lacking) {
        let remedy = ["use ", "turn ", "select "];
        assert!(
            remedy.iter().any(|word| sentence.contains(word)),
            "{values}: {sentence}"
        );
    }
}
