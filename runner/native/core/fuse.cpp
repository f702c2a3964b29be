#include "core/fuse.h"

#include <algorithm>

#include "core/program.h"

namespace edge {

namespace {

class Fuser {
 public:
  Fuser(const edge_program& program, const Kernels& kernels)
      : program_(program),
        kernels_(kernels),
        list_(unfused(program)),
        maker_(static_cast<size_t>(program.value_count), -1),
        users_(static_cast<size_t>(program.value_count)) {
    for (size_t i = 0; i < list_.size(); ++i) {
      const edge_instruction& in = list_[i].plain;
      for (int32_t o = 0; o < in.output_count; ++o) maker(in.outputs[o]) = static_cast<int32_t>(i);
      for (int32_t n = 0; n < in.input_count; ++n) {
        users(in.inputs[n]).push_back(static_cast<int32_t>(i));
      }
    }
    users(program.output).push_back(kResult);
  }

  std::vector<Instruction> run() {
    std::vector<Instruction> fused;
    for (size_t i = 0; i < list_.size(); ++i) {
      const OpCode code = code_of(list_[i]);
      if (code == OpCode::rms_norm && fuse_norm(list_[i])) continue;
      if (fuse_activation(list_[i])) continue;
      if (code == OpCode::split && is_gate(list_[i].plain))
        continue;  // the linear writes the parts
      if (code == OpCode::linear) {
        append_linear(fused, list_[i]);
      } else {
        fused.push_back(list_[i]);
      }
    }
    return fused;
  }

 private:
  static constexpr int32_t kResult = -1;  // the user of the program's output

  static OpCode code_of(const Instruction& instruction) {
    return static_cast<OpCode>(instruction.plain.op);
  }
  int32_t& maker(int32_t value) { return maker_[static_cast<size_t>(value)]; }
  std::vector<int32_t>& users(int32_t value) { return users_[static_cast<size_t>(value)]; }
  int32_t width(int32_t value) const { return program_.values[value].width; }

  // The one instruction that reads `value`, if it has this operator; else null.
  const edge_instruction* only_user(int32_t value, std::initializer_list<OpCode> codes) {
    const std::vector<int32_t>& all = users(value);
    if (all.size() != 1 || all[0] == kResult) return nullptr;
    const Instruction& user = list_[static_cast<size_t>(all[0])];
    const bool fits = std::find(codes.begin(), codes.end(), code_of(user)) != codes.end();
    return fits ? &user.plain : nullptr;
  }

  // Halves of a linear's output on panel boundaries, of which one is activated and then multiplied
  // by the other.
  bool is_gate(const edge_instruction& split) {
    if (split.output_count != 2 || width(split.outputs[0]) != width(split.outputs[1]) ||
        width(split.outputs[0]) % kLanes != 0) {
      return false;
    }
    const int32_t source = maker(split.inputs[0]);
    if (code_of(list_[static_cast<size_t>(source)]) != OpCode::linear ||
        users(split.inputs[0]).size() != 1) {
      return false;
    }
    for (int32_t gate : {0, 1}) {
      const edge_instruction* activation =
          only_user(split.outputs[gate], {OpCode::silu, OpCode::gelu});
      if (activation == nullptr) continue;
      const edge_instruction* product = only_user(activation->outputs[0], {OpCode::mul});
      if (product != nullptr && product == only_user(split.outputs[1 - gate], {OpCode::mul})) {
        return true;
      }
    }
    return false;
  }

  // True if a mul takes the activation over.
  bool fuse_activation(const Instruction& activation) {
    const OpCode code = code_of(activation);
    if (code != OpCode::silu && code != OpCode::gelu) return false;
    const int32_t active = activation.plain.outputs[0];
    if (only_user(active, {OpCode::mul}) == nullptr) return false;
    Instruction& product = list_[static_cast<size_t>(users(active)[0])];
    edge_instruction& in = product.plain;
    const int32_t other = in.inputs[0] == active ? in.inputs[1] : in.inputs[0];
    in.op = static_cast<int32_t>(code == OpCode::silu ? OpCode::silu_mul : OpCode::gelu_mul);
    in.inputs[0] = activation.plain.inputs[0];
    in.inputs[1] = other;
    product.instructions.insert(product.instructions.begin(), activation.instructions.begin(),
                                activation.instructions.end());
    return true;
  }

  // True if all that read the norm take it over.
  bool fuse_norm(const Instruction& norm) {
    const edge_instruction& in = norm.plain;
    if (in.ints[0] != width(in.outputs[0])) return false;
    const std::vector<int32_t>& readers = users(in.outputs[0]);
    for (int32_t reader : readers) {
      if (reader == kResult) return false;
      const Instruction& linear = list_[static_cast<size_t>(reader)];
      if (code_of(linear) != OpCode::linear) return false;
      const edge_weight& w = program_.weights[linear.plain.weights[0]];
      const PackedWeight weight{static_cast<WeightFormat>(w.format), w.n, w.k, nullptr};
      if (kernels_.linear.scratch_bytes(weight, 1) == 0) return false;
    }
    for (int32_t reader : readers) {
      Instruction& linear = list_[static_cast<size_t>(reader)];
      linear.plain.inputs[0] = in.inputs[0];
      linear.norm = in.weights[0];
      linear.eps = in.floats[0];
    }
    if (!readers.empty()) {
      std::vector<int32_t>& instructions = list_[static_cast<size_t>(readers[0])].instructions;
      instructions.insert(instructions.begin(), norm.instructions.begin(), norm.instructions.end());
    }
    return true;
  }

  void append_linear(std::vector<Instruction>& fused, const Instruction& linear) {
    const edge_instruction* split = only_user(linear.plain.outputs[0], {OpCode::split});
    if (split == nullptr || !is_gate(*split)) {
      fused.push_back(linear);
      return;
    }
    int32_t first_row = 0;
    for (int32_t o = 0; o < split->output_count; ++o) {
      fused.push_back(linear);
      fused.back().plain.outputs[0] = split->outputs[o];
      fused.back().first_row = first_row;
      first_row += width(split->outputs[o]);
    }
  }

  const edge_program& program_;
  const Kernels& kernels_;
  std::vector<Instruction> list_;
  std::vector<int32_t> maker_;               // by value: number in list_; -1: an input
  std::vector<std::vector<int32_t>> users_;  // by value
};

}  // namespace

std::vector<Instruction> unfused(const edge_program& program) {
  std::vector<Instruction> list(static_cast<size_t>(program.instruction_count));
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].plain = program.instructions[i];
    list[i].instructions = {static_cast<int32_t>(i)};
  }
  return list;
}

std::vector<Instruction> fuse(const edge_program& program, const Kernels& kernels) {
  return Fuser(program, kernels).run();
}

}  // namespace edge
