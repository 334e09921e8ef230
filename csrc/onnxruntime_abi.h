// ONNX Runtime's binary interface, as far as custom operators need it: a table of functions whose order never changes
// and which later versions only continue. That makes one build serve every version from 1.17 on, and building need
// nothing of ONNX Runtime. Numbers and layouts are those of its onnxruntime_c_api.h, whose comments say what each
// function does.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastrnn::onnxruntime {

constexpr uint32_t api_version = 17;  // of ONNX Runtime 1.17, the least
constexpr uint32_t api_version_with_references = 24;  // to shapes: of 1.24

// Objects of ONNX Runtime's own.
struct Status;
struct SessionOptions;
struct Domain;       // OrtCustomOpDomain
struct KernelInfo;   // a node, while its kernel is made
struct Context;      // OrtKernelContext: a call of a kernel
struct ShapeContext;  // OrtShapeInferContext
struct TypeAndShape;  // OrtTensorTypeAndShapeInfo
struct Attribute;    // OrtOpAttr
struct Value;

enum ErrorCode : int { fail = 1, invalid_argument = 2 };
enum ElementType : int {
  element_float = 1,
  element_int32 = 6,
  element_float16 = 10,
  element_double = 11,
  element_bfloat16 = 16
};
enum Characteristic : int { required, optional };
enum MemoryType : int { default_memory };
enum AttributeType : int { attribute_int = 1 };

class Api {
 public:
  template <int index, class... Arguments> Status* call(Arguments... arguments) const {
    static_assert(index < entries);
    return reinterpret_cast<Status* (*)(Arguments...)>(functions_[index])(arguments...);
  }
  template <int index, class Object> void release(Object* object) const {
    static_assert(index < entries);
    reinterpret_cast<void (*)(Object*)>(functions_[index])(object);
  }

 private:
  static constexpr int entries = 415;  // in version 24; 277 in version 17
  void (*functions_[entries])();
};

// The functions by their places in the table.
namespace entry {
constexpr int CreateStatus = 0, CreateCustomOpDomain = 26, CustomOpDomain_Add = 27, AddCustomOpDomain = 28,
              GetTensorMutableData = 51, CreateTensorTypeAndShapeInfo = 57, SetTensorElementType = 58,
              SetDimensions = 59, GetTensorElementType = 60, GetDimensionsCount = 61, GetDimensions = 62,
              GetSymbolicDimensions = 63, GetTensorTypeAndShape = 65, KernelInfoGetAttribute_float = 85,
              KernelInfoGetAttribute_int64 = 86, KernelInfoGetAttribute_string = 87, KernelContext_GetInput = 90,
              KernelContext_GetOutput = 91, ReleaseTensorTypeAndShapeInfo = 99, KernelInfoGetConstantInput_tensor = 249,
              ShapeInferContext_GetInputTypeShape = 268, ShapeInferContext_GetAttribute = 269,
              ShapeInferContext_SetOutputTypeShape = 270, SetSymbolicDimensions = 271, ReadOpAttr = 272,
              GetTensorElementTypeAndShapeDataReference = 414;  // in version 24
}

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);  // null if the runtime is older
  const char* (*GetVersionString)();
};

// OrtCustomOp of version 17: an operator for one set of element types.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);  // of versions before 16
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, Context*);  // of versions before 16
  void (*KernelDestroy)(void*);
  Characteristic (*GetInputCharacteristic)(const CustomOp*, size_t);
  Characteristic (*GetOutputCharacteristic)(const CustomOp*, size_t);
  MemoryType (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);  // of variadic ones, which there are not
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, Context*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
};

}  // namespace fastrnn::onnxruntime
