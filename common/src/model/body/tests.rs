//! Bodies that are not trees: to bytes and back, what is refused, reasons, the same bits.

use proptest::prelude::*;

use super::*;
use crate::feature::MISSING;
use crate::model::tests::{encode, key, metadata, model, resealed};
use crate::model::{Algorithm, Model, ModelBody, ModelDraft};

const FEATURES: usize = 3;

fn draft(algorithm: Algorithm, body: ModelBody) -> ModelDraft {
    ModelDraft {
        metadata: metadata(algorithm, FEATURES),
        imputation: Vec::new(),
        body,
        calibration: None,
        self_test: vec![vec![0.5, MISSING, -3.0], vec![MISSING; FEATURES]],
    }
}

fn scaling() -> Vec<Scaling> {
    let plain = |mean, inverse_scale| Scaling { signed_log: false, mean, inverse_scale };
    vec![plain(1.0, 0.5), Scaling { signed_log: true, mean: 2.0, inverse_scale: 1.0 }, plain(0.0, 2.0)]
}

fn naive_bayes() -> ModelDraft {
    let features = vec![
        Steps { edges: vec![0.0, 2.0], log_odds: vec![-1.0, 0.5, 3.0] },
        Steps::default(),
        Steps { edges: vec![], log_odds: vec![0.25] },
    ];
    draft(Algorithm::NaiveBayes, ModelBody::Additive { bias: -0.5, features })
}

fn linear_svm() -> ModelDraft {
    let layers = vec![Layer { biases: vec![0.25], weights: vec![1.0, -2.0, 0.5] }];
    draft(Algorithm::LinearSvm, ModelBody::Network { scaling: scaling(), layers })
}

fn neural_network() -> ModelDraft {
    let number = |index: usize| ((index * 37 % 19) as f32 - 9.0) / 8.0;
    let layer = |inputs: usize, units: usize| Layer {
        biases: (0..units).map(number).collect(),
        weights: (0..inputs * units).map(|index| number(index + 5)).collect(),
    };
    let layers = vec![layer(FEATURES, 7), layer(7, 4), layer(4, 1)];
    draft(Algorithm::NeuralNetwork, ModelBody::Network { scaling: scaling(), layers })
}

fn rbf_svm() -> ModelDraft {
    draft(
        Algorithm::RbfSvm,
        ModelBody::Kernel {
            scaling: scaling(),
            gamma: 0.25,
            bias: -1.0,
            coefficients: vec![2.0, -3.0],
            centres: vec![0.0, 1.0, -1.0, 0.5, 2.0, -2.0],
        },
    )
}

fn isotonic() -> Calibration {
    Calibration::Isotonic { knots: vec![(0.0, 0.0), (0.25, 0.01), (0.5, 0.01), (1.0, 0.9)] }
}

fn drafts() -> Vec<ModelDraft> {
    let mut drafts = vec![naive_bayes(), linear_svm(), neural_network(), rbf_svm()];
    let calibrated = |calibration| ModelDraft { calibration: Some(calibration), ..neural_network() };
    drafts.extend([Calibration::Platt { slope: 0.5, offset: -2.0 }, isotonic()].map(calibrated));
    drafts
}

#[test]
fn every_body_comes_back_as_it_was_drafted() {
    for draft in drafts() {
        let bytes = encode(&draft);
        let model = Model::verify(&bytes, &[key().verifying_key()]).unwrap();
        assert_eq!(model.metadata(), &draft.metadata);
        assert_eq!(model.calibration(), draft.calibration.as_ref());
        assert!(model.memory_bytes() > 0);
        for length in 0..bytes.len() {
            assert!(Model::parse(&bytes[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Model::verify(&flipped, &[key().verifying_key()]).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn scores_are_what_the_formulas_say() {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let same = |draft: ModelDraft, values: [f32; 3], log_odds: f64| {
        let score = model(&draft).score(&values);
        assert!((score - logistic(log_odds)).abs() < 1e-6, "{values:?}: {score} is not {}", logistic(log_odds));
    };
    // Equal to an edge is at or below it; a missing value says nothing.
    same(naive_bayes(), [0.0, 7.0, 1.0], -0.5 - 1.0 + 0.25);
    same(naive_bayes(), [2.0, 7.0, MISSING], -0.5 + 0.5);
    same(naive_bayes(), [2.1, MISSING, f32::INFINITY], -0.5 + 3.0);
    // 3 is a deviation above the mean, ln(1 + 0) lies two below it; a thousand is cut off at eight.
    same(linear_svm(), [3.0, 0.0, MISSING], 0.25 + 1.0 + 4.0);
    same(linear_svm(), [MISSING, -(std::f32::consts::E - 1.0), 1000.0], 0.25 + 6.0 + 4.0);
    let near = |x: [f64; 3], z: [f64; 3]| {
        let distance: f64 = x.iter().zip(z).map(|(x, z)| (x - z) * (x - z)).sum();
        (-0.25 * distance).exp()
    };
    let x = [1.0, 0.0, -4.0];
    let expected = -1.0 + 2.0 * near(x, [0.0, -1.0, 2.0]) - 3.0 * near(x, [1.0, 0.5, -2.0]);
    same(rbf_svm(), [3.0, MISSING, -2.0], expected);
}

#[test]
fn a_network_is_its_layers() {
    let draft = neural_network();
    let ModelBody::Network { scaling, layers } = &draft.body else { panic!("no network") };
    let values = [4.0, 300.0, -0.7];
    let mut inputs: Vec<f64> =
        values.iter().zip(scaling).map(|(value, scaling)| f64::from(scaling.apply(*value))).collect();
    for (place, layer) in layers.iter().enumerate() {
        let units = layer.biases.len();
        let unit = |unit: usize| {
            let weights = inputs.iter().enumerate();
            let sum: f64 = weights.map(|(input, value)| value * f64::from(layer.weights[input * units + unit])).sum();
            sum + f64::from(layer.biases[unit])
        };
        let last = place + 1 == layers.len();
        inputs = (0..units).map(unit).map(|sum| if last { sum } else { sum.max(0.0) }).collect();
    }
    let expected = 1.0 / (1.0 + (-inputs[0]).exp());
    assert!((model(&draft).score(&values) - expected).abs() < 1e-5);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let refused = |draft: ModelDraft, what: &str| {
        let error = draft.encode(&key()).unwrap_err().to_string();
        assert!(error.contains(what), "{error} lacks {what}");
    };
    let steps = |edges: Vec<f32>, log_odds: Vec<f32>| {
        let features = vec![Steps { edges, log_odds }, Steps::default(), Steps::default()];
        draft(Algorithm::NaiveBayes, ModelBody::Additive { bias: 0.0, features })
    };
    refused(steps(vec![1.0, 1.0], vec![0.0; 3]), "edges are not ascending");
    refused(steps(vec![1.0], vec![0.0; 3]), "one step more than edges");
    refused(steps(vec![1.0], vec![0.0, f32::NAN]), "not finite");
    refused(steps(vec![0.0; 1024], vec![0.0; 1025]), "not too many");
    let network = |algorithm, layers| draft(algorithm, ModelBody::Network { scaling: scaling(), layers });
    let layer = |inputs: usize, units: usize| Layer { biases: vec![0.0; units], weights: vec![0.0; inputs * units] };
    refused(network(Algorithm::LinearSvm, vec![layer(3, 2), layer(2, 1)]), "layers");
    refused(network(Algorithm::NeuralNetwork, vec![layer(3, 2)]), "last layer has more than one unit");
    refused(network(Algorithm::NeuralNetwork, vec![layer(2, 1)]), "one weight for each input");
    refused(network(Algorithm::NeuralNetwork, vec![layer(3, 513), layer(513, 1)]), "units");
    refused(network(Algorithm::NeuralNetwork, Vec::new()), "count is zero");
    refused(network(Algorithm::RbfSvm, vec![layer(3, 1)]), "does not belong to the algorithm");
    let kernel = |change: fn(&mut ModelDraft)| {
        let mut draft = rbf_svm();
        change(&mut draft);
        draft
    };
    let gamma = |draft: &mut ModelDraft| {
        if let ModelBody::Kernel { gamma, .. } = &mut draft.body {
            *gamma = 0.0;
        }
    };
    refused(kernel(gamma), "gamma");
    let centre = |draft: &mut ModelDraft| {
        if let ModelBody::Kernel { centres, .. } = &mut draft.body {
            centres[0] = 9.0;
        }
    };
    refused(kernel(centre), "too large");
    let calibrated = |calibration| ModelDraft { calibration: Some(calibration), ..linear_svm() };
    refused(calibrated(Calibration::Platt { slope: 0.0, offset: 0.0 }), "slope");
    refused(calibrated(Calibration::Platt { slope: 1.0, offset: f64::NAN }), "not finite");
    for knots in [
        vec![(0.0, 0.0)],
        vec![(0.1, 0.0), (1.0, 1.0)],
        vec![(0.0, 0.0), (0.5, 0.5), (0.5, 0.6), (1.0, 1.0)],
        vec![(0.0, 0.5), (1.0, 0.4)],
        vec![(0.0, 0.0), (1.0, 1.5)],
    ] {
        refused(calibrated(Calibration::Isotonic { knots }), "knots do not ascend");
    }
}

#[test]
fn a_calibration_maps_scores_and_leaves_reasons() {
    let plain = model(&neural_network());
    for calibration in [Calibration::Platt { slope: 2.0, offset: 1.0 }, isotonic()] {
        let calibrated = model(&ModelDraft { calibration: Some(calibration.clone()), ..neural_network() });
        let values = [3.0, 2.0, 1.0];
        assert_eq!(calibrated.score(&values), calibration.apply(plain.score(&values)));
        let [mut a, mut b] = [Vec::new(), Vec::new()];
        plain.explain(&values, &mut a);
        calibrated.explain(&values, &mut b);
        assert!(a == b && !a.is_empty());
    }
    let knots = isotonic();
    assert_eq!([0.0, 0.25, 0.375, 0.5, 1.0].map(|score| knots.apply(score)), [0.0, 0.01, 0.01, 0.01, 0.9]);
    assert!((knots.apply(0.75) - 0.455).abs() < 1e-12);
    let platt = Calibration::Platt { slope: 1.0, offset: 0.0 };
    assert!((platt.apply(0.3) - 0.3).abs() < 1e-12);
}

proptest! {
    #[test]
    fn contributions_add_up(values in prop::collection::vec(prop_oneof![4 => -9.0_f32..9.0, 1 => Just(MISSING)], 0..4)) {
        for draft in [naive_bayes(), linear_svm(), neural_network(), rbf_svm()] {
            let model = model(&draft);
            let mut into = Vec::new();
            model.explain(&values, &mut into);
            let explained: f64 = into.iter().map(|entry| entry.contribution).sum();
            let expected = crate::model::calibration::log_odds(model.score(&values));
            let algorithm = draft.metadata.algorithm;
            prop_assert!((model.baseline() + explained - expected).abs() < 1e-4, "{algorithm}: {explained} {expected}");
        }
    }

    #[test]
    fn calibrations_are_monotone(scores in prop::collection::vec(0.0_f64..=1.0, 2..20), slope in 0.01_f64..9.0) {
        let mut scores = scores;
        scores.sort_by(f64::total_cmp);
        for calibration in [Calibration::Platt { slope, offset: -1.0 }, isotonic()] {
            let mapped: Vec<f64> = scores.iter().map(|score| calibration.apply(*score)).collect();
            prop_assert!(mapped.is_sorted() && mapped.iter().all(|score| (0.0..=1.0).contains(score)), "{mapped:?}");
        }
    }

    /// Sealed anew, so that only the structure can be at fault: what the bytes of a body say is read or refused.
    #[test]
    fn damaged_bodies_neither_panic_nor_give_odd_scores(place in 161_usize..1000, byte in any::<u8>()) {
        for draft in drafts() {
            let bytes = encode(&draft);
            let end = bytes.len() - 128;
            let damaged = resealed(&bytes, |content| content[161 + place % (end - 161)] = byte);
            if let Ok(model) = Model::parse(&damaged) {
                prop_assert!((0.0..=1.0).contains(&model.score(&[1e30, -1e30, 3.0])));
            }
        }
    }
}

const EXPECTED_BITS: [[u64; 3]; 4] = [
    [0x3fe1_fd59_92bc_4b83, 0x3fee_13c5_2952_723c, 0x3fdc_054c_da87_68f9],
    [0x3feb_1cfe_4a8a_b2f9, 0x3f02_b920_a13a_0da3, 0x3fef_ffbb_cb25_6b3c],
    [0x3fdb_2c4f_3132_43fc, 0x3fe0_8408_c10d_5152, 0x3fe5_55ca_7ef8_63b3],
    [0x3fcf_c01d_3d17_6376, 0x3fd1_3656_1333_b7af, 0x3fd1_97c3_09a9_10f0],
];

#[test]
fn scores_have_the_same_bits_everywhere() {
    let bits = |draft: ModelDraft| {
        let model = model(&draft);
        [[0.3, 1.7, -0.2], [12.0, 4e9, 0.01], [MISSING, -5.0, 2.5]].map(|values| model.score(&values).to_bits())
    };
    let found = [naive_bayes(), linear_svm(), neural_network(), rbf_svm()].map(bits);
    assert_eq!(found, EXPECTED_BITS);
}
