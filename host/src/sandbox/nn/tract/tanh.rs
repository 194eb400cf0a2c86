//! The hyperbolic tangent that models were made with, in place of tract's.
//!
//! tract ends its approximation at arguments of 7.5, with values 6e-7 short of one. Next to nothing for most models, but not
//! for one that multiplies `1 + tanh(x)` by a large `x` and then normalises what is left: scores of magika moved by 4e-4. This
//! is the approximation that Eigen has, and ONNX Runtime after it, up to 9, where it is one. No two roundings are fused here, so
//! that its bits are the same for every processor; where that takes it past one by a bit, it is cut off.

use tract_onnx::{
    prelude::{DatumType, Tensor, TractResult, TypedModel},
    tract_core::{
        internal::{Cost, ElementWiseMiniOp, TVec, tvec},
        ops::{element_wise::ElementWiseOp, math::Tanh, scan::Scan},
    },
};

/// Puts it in place of tract's wherever a model has single floats.
pub(crate) fn replace(model: &mut TypedModel) {
    for node in &mut model.nodes {
        let single = node.outputs.iter().all(|output| output.fact.datum_type == DatumType::F32);
        if let Some(scan) = node.op.downcast_mut::<Scan>() {
            replace(&mut scan.body);
        } else if single && node.op.downcast_ref::<ElementWiseOp>().is_some_and(|op| op.0.is::<Tanh>()) {
            node.op = Box::new(ElementWiseOp(Box::new(FullTanh), None));
        }
    }
}

/// The operator.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FullTanh;

impl ElementWiseMiniOp for FullTanh {
    fn name(&self) -> String {
        "FullTanh".to_owned()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let mut plain = tensor.try_as_plain_ram_mut()?;
        plain.as_slice_mut::<f32>()?.iter_mut().for_each(|x| *x = tanh(*x));
        Ok(())
    }

    fn cost_per_element(&self, datum: DatumType) -> TVec<(Cost, usize)> {
        tvec!((Cost::FMA(datum), 11), (Cost::Div(datum), 1))
    }
}

/// A quotient of two polynomials in the square, odd over even. NaN stays NaN.
fn tanh(x: f32) -> f32 {
    const ODD: [f32; 7] =
        [-2.760_768_4e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    const LAST: f32 = 9.0;
    let x = x.clamp(-LAST, LAST);
    let square = x * x;
    let horner = |factors: &[f32]| factors.iter().fold(0.0, |sum, factor| sum * square + factor);
    (x * horner(&ODD) / horner(&EVEN)).clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::tanh;

    #[test]
    fn it_is_near_the_tangent_everywhere_and_one_at_the_ends() {
        for step in -120_000..=120_000 {
            let x = step as f32 / 10_000.0;
            let difference = f64::from(tanh(x)) - f64::from(x).tanh();
            assert!(difference.abs() < 4e-7, "{x}: {difference:e}");
        }
        assert_eq!([f32::INFINITY, 9.0, -9.0, 0.0].map(tanh), [1.0, 1.0, -1.0, 0.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn constants_are_those_of_eigen() {
        let eigen = [-2.76076847742355e-16, 2.00018790482477e-13, 4.89352455891786e-03, 4.89352518554385e-03];
        assert_eq!(eigen.map(|x: f64| x as f32), [-2.760_768_4e-16, 2.000_188e-13, 4.893_524_6e-3, 4.893_525e-3]);
    }
}
