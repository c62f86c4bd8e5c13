"""The CustomResourceDefinitions as files: data that manifests/ takes, no code."""
